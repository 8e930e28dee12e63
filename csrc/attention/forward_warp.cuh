// What a warp makes of keys and values in shared memory, for the 16 or 32 query rows it owns:
//     S = Q K^T,  P = 2^(S - reference),  O += P V,  sum += rowsum(P),
// and in the end out = O / sum and lse = reference + log(sum). Any reference will do that lets nothing overflow and the
// largest P be seen. Two ways through keys share everything:
//
//     fast     for blocks that all rows of the warp see entirely: the reference stays that of earlier keys. It is at
//              most the true maximum, so nothing is lost below; should sums grow too large, the block is done again by
//              the careful way, before P is used.
//     careful  16 keys at a time: masks, softcap, the ends of a sequence; raises the reference to the maximum.
#pragma once
#include "attention/forward_block.cuh"
#include "attention/forward_products.cuh"
#include "attention/mask.cuh"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {

// The largest sum of P over a lane's part of a block that the fast way takes: fp16 ends at 2^16, and O must not
// overflow where V is large.
template <class T>
constexpr float kLargestSum = 16384.0f;  // 2^14
template <>
constexpr float kLargestSum<bf16> = 1073741824.0f;  // 2^30
template <>
constexpr float kLargestSum<float> = 1073741824.0f;

// Keys [begin, end) of the sequence, the first in this row of the tile.
struct KeyRows {
    int begin, end, row;
};

template <class Shape>
class ForwardWarp {
    using T = typename Shape::T;
    static constexpr int kDim = Shape::kDim, kRowTiles = Shape::kRowTiles, kRows = Shape::kRows;

  public:
    VLMK_DEVICE ForwardWarp(const ForwardLaunch& launch, const typename Shape::Tile& keys,
                            const typename Shape::Tile& values)
        : block(launch), products(keys, values, launch) {}

    // Rows of the block from `row` on, which have seen nothing yet.
    VLMK_DEVICE void start(int row) {
        row_ = row;
        referenced_ = false;
#pragma unroll
        for (int i = 0; i < kRows; ++i) minus_reference_[i] = infinity(), sum[i] = 0.0f;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) out[m][c] = {};
    }

    // Keys of a tile from a row on, all seen by all rows. False, and nothing changed, if the reference is too low.
    template <int kBlocks>
    VLMK_DEVICE bool fast_step(int first) {
        Accumulator<> s[kRowTiles][kBlocks];
        products.multiply_keys(s, first);
        float part[kRows] = {};
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
            for (int n = 0; n < kBlocks; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = 2 * m + i / 2;
                    s[m][n].v[i] = exp2(fmaf(s[m][n].v[i], block.launch.factor, minus_reference_[row]));
                    part[row] += s[m][n].v[i];
                }
        float total = part[0];
#pragma unroll
        for (int i = 1; i < kRows; ++i) total += part[i];
        if (__any_sync(kWholeWarp, !(total < kLargestSum<T>))) return false;  // also for NaN
#pragma unroll
        for (int i = 0; i < kRows; ++i) sum[i] += part[i];
        products.add_values(out, s, first);
        return true;
    }

    // `plain`: nothing but causality and window, whose effect is `reach`, hides keys from the warp's rows. From the
    // last keys on: where there are not 16, they are the ones that need care.
    VLMK_DEVICE void careful_step(const KeyRows& keys, bool plain, const Reach& reach) {
#pragma unroll 1
        for (int i = (keys.end - keys.begin - 1) / 16 * 16; i >= 0; i -= 16) {
            const int key = keys.begin + i, row = keys.row + i;
            if (key + 16 <= reach.some.low || reach.some.high <= key) continue;
            const bool seen_by_all =
                Shape::kPlain || (plain && reach.every.low <= key && min(key + 16, keys.end) <= reach.every.high);
            if (seen_by_all && key + 16 <= keys.end && referenced_ && fast_step<2>(row)) continue;

            Accumulator<> s[kRowTiles][2];
            products.multiply_keys(s, row);
            if (seen_by_all)
                trim_scores(s, keys.end - key);
            else
                mask_scores(s, key, keys.end);
            raise_references(s);
            referenced_ = true;
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
                for (int n = 0; n < 2; ++n)
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const int r = 2 * m + j / 2;
                        s[m][n].v[j] = exp2(s[m][n].v[j] + guarded(minus_reference_[r]));
                        sum[r] += s[m][n].v[j];
                    }
            products.add_values(out, s, row);
        }
    }

    // O becomes the output, and the sums the logsumexps.
    VLMK_DEVICE void normalise() {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float total = reduce_add<4>(sum[r]);
            const float factor = total == 0.0f ? 0.0f : 1.0f / total;
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) {
                out[r / 2][c].v[r % 2 * 2] *= factor;
                out[r / 2][c].v[r % 2 * 2 + 1] *= factor;
            }
            sum[r] = logf(total) - minus_reference_[r] * kLn2;
        }
    }

    const ForwardBlock block;
    ForwardProducts<Shape> products;
    typename Shape::Out out;
    float sum[kRows];  // of the rows 8 apart that a lane has a part of

  private:
    // A row that has seen nothing keeps the reference -inf; subtracting 0 instead makes its P 2^-inf = 0.
    VLMK_DEVICE static float guarded(float minus_reference) {
        return minus_reference == infinity() ? 0.0f : minus_reference;
    }

    // Products -> scores of `count` keys that all rows see, -inf behind them.
    VLMK_DEVICE void trim_scores(Accumulator<> (&s)[kRowTiles][2], int count) const {
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool seen = 8 * n + lane_index() % 4 * 2 + i % 2 < count;
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m)
                    s[m][n].v[i] = seen ? s[m][n].v[i] * block.launch.factor : -infinity();
            }
    }

    // Products -> scores, -inf where a row does not see a key or from `end` on.
    VLMK_DEVICE void mask_scores(Accumulator<> (&s)[kRowTiles][2], int first_key, int end) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const Place at = block.place(row_ + 8 * r + lane_index() / 4);
            Range seen = key_range(block.p, block.s, at.position);
            seen.high = min(seen.high, end);
            const RowMask mask(block.p, block.s, at.head, at.position);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& score = s[r / 2][i / 2].v[r % 2 * 2 + i % 2];
                const int key = first_key + i / 2 * 8 + lane_index() % 4 * 2 + i % 2;
                score = seen.holds(key) ? mask.apply(key, scaled_score(block.p, score)) : -infinity();
            }
        }
    }

    // References become at least the largest score; O and the sums follow.
    VLMK_DEVICE void raise_references(const Accumulator<> (&s)[kRowTiles][2]) {
        float rescale[kRows];
        bool raised = false;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float largest = -minus_reference_[r];
#pragma unroll
            for (int i = 0; i < 4; ++i) largest = fmaxf(largest, s[r / 2][i / 2].v[r % 2 * 2 + i % 2]);
            largest = reduce_max<4>(largest);
            rescale[r] = exp2(guarded(-largest) - minus_reference_[r]);
            raised = raised || largest > -minus_reference_[r];
            minus_reference_[r] = -largest;
        }
        if (!referenced_ || !__any_sync(kWholeWarp, raised)) return;  // there is nothing yet, or nothing new
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            sum[r] *= rescale[r];
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) {
                out[r / 2][c].v[r % 2 * 2] *= rescale[r];
                out[r / 2][c].v[r % 2 * 2 + 1] *= rescale[r];
            }
        }
    }

    int row_;
    bool referenced_;  // some keys are in O, the sums and the references
    float minus_reference_[kRows];
};

}  // namespace vlmk::gpu
