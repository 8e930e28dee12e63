// InfoNCE forward: of each strip's rows and columns the maximum, the sum of exponentials, the sum, and sum and number
// of the positives. merge.cu puts strips together.
#pragma once
#include "contrastive/logits.cuh"
#include "contrastive/planes.h"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {

// The rows, or the columns, of a warp's strip: a lane has some of the numbers of two lines at a time, and the lanes
// of a line share what they find.
template <class T, bool kRows>
class StripLines {
    using Tile = LogitsTile<T>;

  public:
    static constexpr int kPairs = kRows ? Tile::kM : Tile::kN, kItems = 2 * (kRows ? Tile::kN : Tile::kM);

    VLMK_DEVICE StripLines(const Tile& tile, const Partials& partials) : tile_(tile), partials_(partials) {
        const int row = tile.tile_row() + tile.warp_row(), column = tile.tile_column() + tile.warp_column();
        strip_ = (kRows ? column : row) / Tile::kStrip;
        first_ = kRows ? row : column;
    }

    VLMK_DEVICE static const float& element(const typename Tile::Sums& sums, int pair, int i, int item) {
        return kRows ? sums[pair][item / 2].v[2 * i + item % 2] : sums[item / 2][pair].v[2 * (item % 2) + i];
    }
    VLMK_DEVICE int line(int pair, int i) const { return kRows ? tile_.row(pair, i) : tile_.column(pair, i); }
    VLMK_DEVICE int item(int item) const {
        return kRows ? tile_.column(item / 2, item % 2) : tile_.row(item / 2, item % 2);
    }
    VLMK_DEVICE bool has(int line, int item) const {
        return kRows ? tile_.has_row(line) && tile_.has_column(item) : tile_.has_row(item) && tile_.has_column(line);
    }
    VLMK_DEVICE int64_t line_key(int line) const { return kRows ? tile_.row_key(line) : tile_.column_key(line); }
    VLMK_DEVICE int64_t item_key(int item) const { return kRows ? tile_.column_key(item) : tile_.row_key(item); }

    VLMK_DEVICE static float add(float value) {
        if constexpr (kRows)
            return reduce_add<4>(value);
        else
            return reduce_add_apart<4>(value);
    }
    VLMK_DEVICE static float max(float value) {
        if constexpr (kRows)
            return reduce_max<4>(value);
        else
            return reduce_max_apart<4>(value);
    }

    // What all lanes of the lines of a pair know, in whole sectors.
    VLMK_DEVICE void store(int plane, int pair, float first, float second) const {
        const int lane = lane_index(), which = kRows ? lane % 4 : lane / 4;
        const int at = kRows ? 16 * pair + 8 * which + lane / 4 : 8 * pair + lane % 4 * 2 + which;
        if (which < 2) partials_.at(plane, strip_)[first_ + at] = which == 0 ? first : second;
    }

  private:
    const Tile& tile_;
    const Partials& partials_;
    int strip_, first_;
};

template <class Lines, class Sums>
VLMK_DEVICE void store_sums(const Lines& lines, const Sums& values, StatisticsPlane plane) {
#pragma unroll
    for (int pair = 0; pair < Lines::kPairs; ++pair) {
        float sum[2] = {};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int item = 0; item < Lines::kItems; ++item) sum[i] += lines.element(values, pair, i, item);
            sum[i] = lines.add(sum[i]);
        }
        lines.store(plane, pair, sum[0], sum[1]);
    }
}

template <class Lines, class Sums>
VLMK_DEVICE void store_positives(const Lines& lines, const Sums& z, bool some) {
    int64_t keys[Lines::kItems];
    if (some)
#pragma unroll
        for (int item = 0; item < Lines::kItems; ++item) keys[item] = lines.item_key(lines.item(item));
#pragma unroll
    for (int pair = 0; pair < Lines::kPairs; ++pair) {
        float target[2] = {}, count[2] = {};
        if (some)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int line = lines.line(pair, i);
                const int64_t key = lines.line_key(line);
#pragma unroll
                for (int item = 0; item < Lines::kItems; ++item)
                    if (key == keys[item] && lines.has(line, lines.item(item))) {
                        target[i] += lines.element(z, pair, i, item);
                        count[i] += 1.0f;
                    }
                target[i] = lines.add(target[i]);
                count[i] = lines.add(count[i]);
            }
        lines.store(kTarget, pair, target[0], target[1]);
        lines.store(kPositives, pair, count[0], count[1]);
    }
}

template <class Lines>
VLMK_DEVICE void store_constant(const Lines& lines, float value, StatisticsPlane plane) {
#pragma unroll
    for (int pair = 0; pair < Lines::kPairs; ++pair) lines.store(plane, pair, value, value);
}

// With a maximum for each line. Exponents are differences first, then times log2 e: a logit that is the maximum gives
// exactly 1.
template <class Lines, class Sums>
VLMK_DEVICE void store_exponentials(const Lines& lines, const Sums& z) {
#pragma unroll
    for (int pair = 0; pair < Lines::kPairs; ++pair) {
        float largest[2], sum[2] = {};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            largest[i] = -infinity();
#pragma unroll
            for (int item = 0; item < Lines::kItems; ++item)
                largest[i] = fmaxf(largest[i], lines.element(z, pair, i, item));
            largest[i] = lines.max(largest[i]);
            const float reference = largest[i] == -infinity() ? 0.0f : largest[i];
#pragma unroll
            for (int item = 0; item < Lines::kItems; ++item)
                sum[i] += exp2((lines.element(z, pair, i, item) - reference) * kLog2E);
            sum[i] = lines.add(sum[i]);
        }
        lines.store(kMaximum, pair, largest[0], largest[1]);
        lines.store(kExponentials, pair, sum[0], sum[1]);
    }
}

// Logits of a strip that are no further apart have one reference, and one exponential that serves row and column: none
// is below e^-40 of the largest, far from where fp32 ends.
constexpr float kNearLogits = 40.0f;

template <class T>
VLMK_DEVICE void info_nce_statistics(const InfoNceLaunch& launch) {
    using Tile = LogitsTile<T>;
    const Tile tile(launch.problem, launch.chunk);
    typename Tile::Sums z;
    tile.multiply(z);
    const float scale = *launch.problem.scale;
    const auto for_each = [&](const auto& visit) {
#pragma unroll
        for (int m = 0; m < Tile::kM; ++m)
#pragma unroll
            for (int n = 0; n < Tile::kN; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) visit(m, n, e, z[m][n].v[e]);
    };
    for_each([&](int, int, int, float& value) { value *= scale; });

    const StripLines<T, true> rows(tile, launch.chunk.row_partials);
    const StripLines<T, false> columns(tile, launch.chunk.column_partials);
    store_sums(rows, z, kTotal);  // logits past the ends are 0
    store_sums(columns, z, kTotal);
    const bool some = tile.some_positives();
    store_positives(rows, z, some);
    store_positives(columns, z, some);
    if (!tile.full())
        for_each([&](int m, int n, int e, float& value) {
            if (!tile.has_row(tile.row(m, e / 2)) || !tile.has_column(tile.column(n, e % 2))) value = -infinity();
        });

    float largest = -infinity(), smallest = infinity();
    for_each([&](int, int, int, float& value) {
        largest = fmaxf(largest, value);
        smallest = fminf(smallest, value);
    });
    largest = reduce_max(largest);
    smallest = -reduce_max(-smallest);
    if (largest - smallest < kNearLogits) {
        for_each([&](int, int, int, float& value) { value = exp2((value - largest) * kLog2E); });
        store_constant(rows, largest, kMaximum);
        store_constant(columns, largest, kMaximum);
        store_sums(rows, z, kExponentials);
        store_sums(columns, z, kExponentials);
    } else {
        store_exponentials(rows, z);
        store_exponentials(columns, z);
    }
}

}  // namespace vlmk::gpu
