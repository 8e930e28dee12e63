// The products of a chunk of G with the features: sums of the image side, G Y, and of the text side, G^T X. One kernel
// does both; the text side reads G transposed.
#pragma once
#include <type_traits>

#include "contrastive/gpu_tiles.h"
#include "contrastive/launch.h"
#include "contrastive/logits.cuh"
#include "gpu/tile_product.cuh"
#include "gpu/window_copy.cuh"

namespace vlmk::gpu {

// A tile of the sum: rows of one side, features of the other.
template <class T, Side kRowSide>
class FeatureSum {
    static constexpr bool kImage = kRowSide == Side::image, kWords = sizeof(T) == 4;
    static constexpr int kSide = tile_side(sizeof(T)), kStrip = strip_side(sizeof(T)), kDepth = stage_depth(sizeof(T));
    static constexpr int kM = kStrip / 16, kN = kStrip / 8;
    // Depth by rows or features.
    using Wide = SharedTile<T, kDepth, kSide, std::conditional_t<kWords, WordPitch, OddPitch>>;
    using Gradient = std::conditional_t<kImage, SharedTile<T, kSide, kDepth>, Wide>;
    using Sums = TileSum<kM, kN>;
    static constexpr int kStageBytes = products_shared_bytes(sizeof(T)) / 2;
    static_assert(Gradient::kBytes + Wide::kBytes <= kStageBytes, "the plan and the kernel agree on shared memory");

  public:
    // How many blocks the side has.
    VLMK_DEVICE static int blocks(const ProductsLaunch& launch) {
        const int rows = kImage ? launch.chunk.rows : launch.chunk.columns;
        return (rows + kSide - 1) / kSide * ((static_cast<int>(launch.problem.dim) + kSide - 1) / kSide);
    }

    VLMK_DEVICE FeatureSum(const ProductsLaunch& launch, int block) : p_(launch.problem), chunk_(launch.chunk) {
        const int blocks = (static_cast<int>(p_.dim) + kSide - 1) / kSide;
        row_ = block / blocks * kSide;
        feature_ = block % blocks * kSide;
        extern __shared__ __align__(16) char shared[];
        base_ = shared_address(shared);
    }

    VLMK_DEVICE void run() const {
        Sums sums;
        multiply(sums);
        add(sums);
    }

  private:
    VLMK_DEVICE void multiply(Sums& sums) const {
        const Matrix features = kImage ? features_of<T>(p_.text, p_.dim, chunk_.text_access)
                                       : features_of<T>(p_.image, p_.dim, chunk_.image_access);
        const int stride = chunk_.gradient_stride * static_cast<int>(sizeof(T)),
                  all_rows = (chunk_.rows + kSide - 1) / kSide * kSide;
        const Matrix gradient{static_cast<const char*>(chunk_.gradient), all_rows, stride, stride, kChunkBytes};
        const int depth = kImage ? chunk_.columns : chunk_.rows, stages = (depth + kDepth - 1) / kDepth;
        const int first = kImage ? chunk_.first_column : chunk_.first_row;
        constexpr int kBytes = static_cast<int>(sizeof(T));
        WindowStream<Gradient, kLossThreads> g(gradient, kImage ? row_ : 0, kImage ? 0 : row_ * kBytes);
        const auto start_gradient = [&](uint32_t stage) {
            g.start(stage);
            if constexpr (kImage)
                g.advance(kDepth * kBytes);
            else
                g.advance_rows(kDepth);
        };
        const auto use = [&](uint32_t stage) { add_stage(sums, stage); };
        using Stream = WindowStream<Wide, kLossThreads>;
        if (Stream::takes(features) && depth == stages * kDepth && feature_ + kSide <= static_cast<int>(p_.dim)) {
            Stream y(features, first, feature_ * kBytes);
            const auto start = [&](uint32_t stage) {
                start_gradient(stage);
                y.start(stage + Gradient::kBytes);
                y.advance_rows(kDepth);
            };
            in_two_stages<kStageBytes>(base_, stages, start, use);
        } else {
            int row = first;
            const auto start = [&](uint32_t stage) {
                start_gradient(stage);
                WindowCopy<Wide, kLossThreads>::start(Wide(stage + Gradient::kBytes), features, row, feature_ * kBytes);
                row += kDepth;
            };
            in_two_stages<kStageBytes>(base_, stages, start, use);
        }
    }

    VLMK_DEVICE void add_stage(Sums& sums, uint32_t stage) const {
        const Gradient g(stage);
        const Wide y(stage + Gradient::kBytes);
        if constexpr (kWords) {
            const WordView<Wide> features(y, 0, warp_feature());
            const auto right = [&](int k, int column) { return features.right8(k, column); };
            if constexpr (kImage) {
                const DownView<Gradient> rows(g, warp_row(), 0);
                add_split_product(sums, [&](int row, int k) { return rows.left8(row, k); }, right);
            } else {
                const WordView<Gradient> rows(g, 0, warp_row());
                add_split_product(sums, [&](int row, int k) { return rows.left8(k, row); }, right);
            }
        } else {
            const TileView<Wide> features(y, 0, warp_feature());
            const DownView<Gradient> down(g, kImage ? warp_row() : 0, 0);
            const AcrossView<Gradient> across(g, 0, kImage ? 0 : warp_row());
#pragma unroll
            for (int k = 0; k < kDepth; k += 16) {
                LeftRows<T, kM, 2> left;
#pragma unroll
                for (int m = 0; m < kM; ++m) left.a[m][0] = kImage ? down.left(16 * m, k) : across.left(k, 16 * m);
                add_product(sums, left, features + Wide::offset(k, 0));
            }
        }
    }

    // To the sums of the chunks before.
    VLMK_DEVICE void add(const Sums& sums) const {
        const int first = row_ + warp_row(), rows = (kImage ? chunk_.rows : chunk_.columns) - first;
        const FeatureSums to = (kImage ? chunk_.image_sum : chunk_.text_sum.from(chunk_.first_column)).from(first);
        const bool fresh = kImage ? chunk_.first_columns : chunk_.first_rows;
        if constexpr (!kWords)
            if (to.halved()) return add_halves(sums, to, rows, fresh);
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const int row = 16 * m + Accumulator<>::row(e);
#pragma unroll
                for (int n = 0; n < kN; ++n) {
                    const int feature = feature_ + warp_feature() + 8 * n + Accumulator<>::column(e);
                    if (row >= rows || feature >= static_cast<int>(p_.dim)) continue;
                    float2* place = reinterpret_cast<float2*>(to.whole + int64_t{row} * to.stride + feature);
                    float2 sum = make_float2(sums[m][n].v[e], sums[m][n].v[e + 1]);
                    if (!fresh) sum.x += place->x, sum.y += place->y;
                    *place = sum;
                }
            }
    }

    // Neighbouring lanes exchange pairs of two neighbouring blocks of columns, so that each has four numbers of one of
    // them, and four lanes a sector of upper halves and one of lower.
    VLMK_DEVICE void add_halves(const Sums& sums, const FeatureSums& to, int rows, bool fresh) const {
        const bool odd = lane_index() % 2 == 1;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const int row = 16 * m + Accumulator<>::row(e);
#pragma unroll
                for (int n = 0; n < kN; n += 2) {
                    const float *a = sums[m][n].v + e, *b = sums[m][n + 1].v + e;
                    const float x = exchange(odd ? a[0] : b[0]), y = exchange(odd ? a[1] : b[1]);
                    float four[4] = {odd ? x : a[0], odd ? y : a[1], odd ? b[0] : x, odd ? b[1] : y};
                    const int feature =
                        feature_ + warp_feature() + 8 * (n + (odd ? 1 : 0)) + Accumulator<>::column(e) / 4 * 4;
                    if (row >= rows || feature >= static_cast<int>(p_.dim)) continue;
                    const int64_t at = int64_t{row} * to.stride + feature;
                    uint2* upper = reinterpret_cast<uint2*>(to.upper + at);
                    uint2* lower = reinterpret_cast<uint2*>(to.lower + at);
                    if (!fresh) {
                        const uint2 u = *upper, l = *lower;
                        add_pair(four[0], four[1], u.x, l.x);
                        add_pair(four[2], four[3], u.y, l.y);
                    }
                    *upper = make_uint2(halves<0x7632>(four[0], four[1]), halves<0x7632>(four[2], four[3]));
                    *lower = make_uint2(halves<0x5410>(four[0], four[1]), halves<0x5410>(four[2], four[3]));
                }
            }
    }

    VLMK_DEVICE static float exchange(float value) { return __shfl_xor_sync(kWholeWarp, value, 1); }
    // Upper (0x7632) or lower (0x5410) halves of two numbers.
    template <uint32_t kSelect>
    VLMK_DEVICE static uint32_t halves(float first, float second) {
        return __byte_perm(__float_as_uint(first), __float_as_uint(second), kSelect);
    }
    VLMK_DEVICE static void add_pair(float& first, float& second, uint32_t upper, uint32_t lower) {
        first += __uint_as_float(__byte_perm(lower, upper, 0x5410));
        second += __uint_as_float(__byte_perm(lower, upper, 0x7632));
    }

    VLMK_DEVICE static int warp_row() { return static_cast<int>(threadIdx.x) / kWarpLanes / 2 * kStrip; }
    VLMK_DEVICE static int warp_feature() { return static_cast<int>(threadIdx.x) / kWarpLanes % 2 * kStrip; }

    const ContrastiveProblem& p_;
    const Chunk& chunk_;
    int row_, feature_;
    uint32_t base_;
};

// Blocks of the image side come first: where they are few, their sums are the longest.
template <class T>
VLMK_DEVICE void add_products(const ProductsLaunch& launch) {
    const int image_blocks = FeatureSum<T, Side::image>::blocks(launch);
    const int block = static_cast<int>(blockIdx.x);
    if (block < image_blocks)
        FeatureSum<T, Side::image>(launch, block).run();
    else
        FeatureSum<T, Side::text>(launch, block - image_blocks).run();
}

}  // namespace vlmk::gpu
