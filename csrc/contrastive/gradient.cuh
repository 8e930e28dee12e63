// A tile of G, the gradient of the loss by the logits, and what sums over its rows. The losses differ in what they make
// of a logit; see info_nce.cuh and sigmoid.cuh.
#pragma once
#include "contrastive/logits.cuh"
#include "contrastive/planes.h"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {

// Of one logit.
struct LogitGradient {
    float gradient, loss;
};

// A Loss is made of the launch and the tile, and prepares shared memory behind the first stage of products; then
// row(r) and column(c) are what it needs of those of the tile, and of(row, column, <x, y>, whether positive) is what it
// makes of a logit.
template <class T, class Loss>
class GradientTile {
    using Tile = LogitsTile<T>;
    using Sums = typename Tile::Sums;
    static constexpr int kM = Tile::kM, kN = Tile::kN, kStrip = Tile::kStrip;
    using Launch = typename Loss::Launch;

  public:
    VLMK_DEVICE explicit GradientTile(const Launch& launch)
        : launch_(launch), p_(launch.problem), chunk_(launch.chunk), tile_(p_, chunk_) {}

    VLMK_DEVICE void run() {
        Sums values;
        tile_.multiply(values);
        __syncthreads();
        const Loss loss(launch_, tile_, tile_.shared() + Tile::kStageBytes);
        __syncthreads();
        // Few strips have positives or an end of the matrix, unless there are groups.
        if (tile_.full() && !tile_.some_positives())
            differentiate<false>(loss, {}, values);
        else
            differentiate<true>(loss, marks(), values);
        if (chunk_.gradient == nullptr) return;
        if (p_.image.factor != nullptr) tile_.apply_factors(values);
        if (chunk_.diagonal != nullptr && tile_.some_positives()) take_diagonal(values);
        store(values, chunk_.range == nullptr ? 1.0f : chunk_.range->up);
    }

  private:
    // A bit for each of a lane's logits.
    struct Marks {
        uint32_t positive[kM] = {}, outside[kM] = {};
    };
    VLMK_DEVICE Marks marks() const {
        Marks found;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = tile_.row(m, half);
                const int64_t key = tile_.row_key(row);
#pragma unroll
                for (int i = 0; i < 2 * kN; ++i) {
                    const int column = tile_.column(i / 2, i % 2);
                    const uint32_t mark = 1u << (i / 2 * 4 + 2 * half + i % 2);
                    if (p_.labels != Labels::none && key == tile_.column_key(column)) found.positive[m] |= mark;
                    if (!tile_.has_row(row) || !tile_.has_column(column)) found.outside[m] |= mark;
                }
            }
        return found;
    }

    // <x, y> to G, and the sums of rows.
    template <bool kCareful>
    VLMK_DEVICE void differentiate(const Loss& loss, const Marks& marks, Sums& values) const {
        const int strip = (tile_.tile_column() + tile_.warp_column()) / kStrip;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            const int rows_in_tile[2] = {tile_.warp_row() + 16 * m + Accumulator<>::row(0),
                                         tile_.warp_row() + 16 * m + Accumulator<>::row(2)};
            const typename Loss::Row rows[2] = {loss.row(rows_in_tile[0]), loss.row(rows_in_tile[1])};
            float sums[2][kRowPlanes] = {};
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    const auto column = loss.column(tile_.warp_column() + 8 * n + Accumulator<>::column(odd));
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        float& value = values[m][n].v[2 * half + odd];
                        const float dot = value;
                        const uint32_t mark = 1u << (4 * n + 2 * half + odd);
                        LogitGradient found =
                            loss.of(rows[half], column, dot, kCareful && (marks.positive[m] & mark) != 0);
                        if (kCareful && (marks.outside[m] & mark) != 0) found = {0.0f, 0.0f};
                        sums[half][kDot] += found.gradient * dot;
                        sums[half][kGradient] += found.gradient;
                        sums[half][kLoss] += found.loss;
                        value = found.gradient;
                    }
                }
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int plane = 0; plane < Loss::kPlanes; ++plane) {
                    const float sum = reduce_add<4>(sums[half][plane]);
                    if (lane_index() % 4 == 0)
                        chunk_.row_partials.at(plane, strip)[tile_.tile_row() + rows_in_tile[half]] = sum;
                }
        }
    }

    // The gradients of positive pairs, which are far larger than others, are kept in fp32.
    VLMK_DEVICE void take_diagonal(Sums& values) const {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int row = tile_.row(m, e / 2), column = tile_.column(n, e % 2);
                    if (row + p_.label_offset != column || !tile_.has_row(row) || !tile_.has_column(column)) continue;
                    chunk_.diagonal[row] = values[m][n].v[e];
                    values[m][n].v[e] = 0.0f;
                }
    }

    VLMK_DEVICE void store(const Sums& values, float up) const {
        const int row = tile_.tile_row() + tile_.warp_row(), column = tile_.tile_column() + tile_.warp_column();
        T* to = static_cast<T*>(chunk_.gradient) + int64_t{row} * chunk_.gradient_stride + column;
        if constexpr (sizeof(T) == 4)
            store_words(values, up, to);
        else
            store_halves(values, up, to);
    }

    // Four lanes fill a sector.
    VLMK_DEVICE void store_words(const Sums& values, float up, float* to) const {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int e = 0; e < 4; e += 2)
                    *reinterpret_cast<float2*>(to + int64_t{16 * m + Accumulator<>::row(e)} * chunk_.gradient_stride +
                                               8 * n + Accumulator<>::column(e)) =
                        make_float2(values[m][n].v[e] * up, values[m][n].v[e + 1] * up);
    }

    // Through a tile of the warp's own in the first stage: 8 lanes a line of 128 bytes.
    VLMK_DEVICE void store_halves(const Sums& values, float up, T* to) const {
        using Strip = SharedTile<T, kStrip, kStrip>;
        static_assert(kLossThreads / kWarpLanes * Strip::kBytes <= Tile::kStageBytes, "the strips fit into a stage");
        const Strip strip(tile_.shared() + static_cast<int>(threadIdx.x) / kWarpLanes * Strip::kBytes);
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int e = 0; e < 4; e += 2)
                    store_shared(strip.address(16 * m + Accumulator<>::row(e), 8 * n + Accumulator<>::column(e)),
                                 pack<T>(values[m][n].v[e] * up, values[m][n].v[e + 1] * up));
        __syncwarp();
        constexpr int kChunks = kStrip / Strip::kChunk, kRowsAtOnce = kWarpLanes / kChunks;
        const int row = lane_index() / kChunks, column = lane_index() % kChunks * Strip::kChunk;
#pragma unroll 4
        for (int r = row; r < kStrip; r += kRowsAtOnce)
            *reinterpret_cast<uint4*>(to + int64_t{r} * chunk_.gradient_stride + column) =
                load_shared<uint4>(strip.address(r, column));
    }

    const Launch& launch_;
    const ContrastiveProblem& p_;
    const Chunk& chunk_;
    const Tile tile_;
};

}  // namespace vlmk::gpu
