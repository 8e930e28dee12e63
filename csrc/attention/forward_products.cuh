// The two products of attention as one warp computes them, S = Q K^T and O += P V, from shared tiles of queries, keys
// and values. In 16 bit on m16n8k16, with an m16n8k8 step for the last 8 of an odd head_dim; in fp32 by three products
// of tf32.
#pragma once
#include "attention/forward_launch.h"
#include "attention/forward_tiles.h"
#include "gpu/mma.cuh"
#include "gpu/operands.cuh"
#include "gpu/shared_access.cuh"
#include "gpu/split_tf32.cuh"
#include "gpu/tile_view.cuh"

namespace vlmk::gpu {

template <class Element, int kIndex, bool kAllKeys = false>
struct ForwardShape {
    using T = Element;
    static constexpr bool kResident = kAllKeys, kPlain = kResident;  // all rows see all keys
    static constexpr ForwardTile kTile = ForwardTiles<T>::kTiles[kIndex];
    static constexpr int kDim = kTile.head_dim, kKeys = kTile.keys, kRowTiles = kTile.row_tiles;
    static constexpr int kRows = 2 * kRowTiles;  // that a lane has a part of: 8 apart
    using Tile = SharedTile<T, kKeys, kDim>;     // keys or values
    using QueryTile = SharedTile<T, kTile.rows(), kDim>;
    using Out = Accumulator<>[kRowTiles][kDim / 8];
    template <int kBlocks>
    using Scores = Accumulator<>[kRowTiles][kBlocks];
    static_assert(Tile::kBytes == kKeys * kTile.row_bytes(), "plan and kernel agree about shared memory");
};

template <class Shape, class T = typename Shape::T>
class ForwardProducts {
    static constexpr ForwardTile kTile = Shape::kTile;
    static constexpr int kDim = Shape::kDim, kRowTiles = Shape::kRowTiles;
    static constexpr int kDepthSteps = kDim / 16;
    static constexpr bool kOddTail = kDim % 16 == 8;  // 8 more of the depth, and an odd block of columns
    using Tile = typename Shape::Tile;
    using QueryTile = typename Shape::QueryTile;

    struct QueryRows {
        LeftFragment<T, 16> steps[kDepthSteps];
        LeftFragment<T, 8> tail;
    };

  public:
    VLMK_DEVICE ForwardProducts(const Tile& keys, const Tile& values, const ForwardLaunch& launch)
        : keys_(keys, 0, 0), values_(values, 0, 0), launch_(launch) {}

    // On to other tiles of keys and values.
    VLMK_DEVICE void move(int bytes) {
        keys_ = keys_ + bytes;
        values_ = values_ + bytes;
    }
    VLMK_DEVICE bool are_before(const Tile& tile) const { return keys_.at < tile.address(0, 0); }

    // Whether these columns exist; known when compiling unless the kernel serves several widths.
    VLMK_DEVICE bool exists(int column) const {
        return kTile.exact() || column < static_cast<int>(launch_.problem.head_dim);
    }

    // Into registers, where there is room for them.
    VLMK_DEVICE void load_query(const QueryTile& queries, int row) {
        const DownView<QueryTile> from(queries, row, 0);
        query_at_ = from.at;
        if constexpr (!kTile.query_in_shared) {
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
                for (int k = 0; k < kDepthSteps; ++k)
                    if (exists(16 * k)) query_[m].steps[k] = from.left(16 * m, 16 * k);
                if constexpr (kOddTail) query_[m].tail = from.left_half(16 * m, kDim - 8);
            }
        }
    }

    // The same by parts of the columns of a row tile.
    template <class Part>
    VLMK_DEVICE void load_query_part(int m, int part, const Part& tile) {
        static_assert(!kTile.query_in_shared && kTile.exact(), "all of the query is in registers");
        constexpr int kSteps = (Part::kColumns + 15) / 16;
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
            const int k = part * kSteps + i;
            if (k < kDepthSteps) query_[m].steps[k] = load_left(tile, 0, 16 * i);
            if (kOddTail && k == kDepthSteps) query_[m].tail = load_left_half(tile, 0, 16 * i);
        }
    }

    // S += Q K^T for 8 kBlocks keys from a row of the tile on.
    template <int kBlocks>
    VLMK_DEVICE void multiply_keys(Accumulator<> (&s)[kRowTiles][kBlocks], int row) const {
#pragma unroll
        for (int k = 0; k < kDepthSteps; ++k) {
            if (!exists(16 * k)) break;
            LeftFragment<T, 16> q[kRowTiles];
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m)
                if constexpr (kTile.query_in_shared)
                    q[m] = DownView<QueryTile>(query_at_).left(16 * m, 16 * k);
                else
                    q[m] = query_[m].steps[k];
#pragma unroll
            for (int n = 0; n < kBlocks; n += 2) {
                RightFragment<T, 16> b[2];
                keys_.right(row + 8 * n, 16 * k, b);
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
                    mma(s[m][n], q[m], b[0]);
                    mma(s[m][n + 1], q[m], b[1]);
                }
            }
        }
        if constexpr (kOddTail) {
            static_assert(!kTile.query_in_shared, "the last 8 are in registers");
#pragma unroll
            for (int n = 0; n < kBlocks; n += 2) {
                RightFragment<T, 8> b[2];
                (values_ + -value_distance()).right_of_half_depth(row + 8 * n, kDim - 8, b);  // of keys
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
                    mma(s[m][n], query_[m].tail, b[0]);
                    mma(s[m][n + 1], query_[m].tail, b[1]);
                }
            }
        }
    }

    // O += P V for the 8 kBlocks values from a row of the tile on; `p` is rounded here.
    template <int kBlocks>
    VLMK_DEVICE void add_values(typename Shape::Out& out, const Accumulator<> (&p)[kRowTiles][kBlocks], int row) const {
        constexpr int kSteps = kBlocks / 2;
        LeftFragment<T, 16> weights[kRowTiles][kSteps];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
            for (int k = 0; k < kSteps; ++k) weights[m][k] = as_left<T>(p[m][2 * k], p[m][2 * k + 1]);
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
#pragma unroll
            for (int c = 0; c < kDim / 16; ++c) {
                if (!exists(16 * c)) break;
                RightFragment<T, 16> v[2];
                values_.right(row + 16 * k, 16 * c, v);
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) {
                    mma(out[m][2 * c], weights[m][k], v[0]);
                    mma(out[m][2 * c + 1], weights[m][k], v[1]);
                }
            }
            if constexpr (kOddTail) {
                const RightFragment<T, 16> v = values_.right_half(row + 16 * k, kDim - 8);
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) mma(out[m][kDim / 8 - 1], weights[m][k], v);
            }
        }
    }

  private:
    // From keys to their values, in bytes.
    VLMK_DEVICE int value_distance() const {
        if constexpr (Shape::kResident)
            return launch_.value_distance;
        else
            return Tile::kBytes;
    }

    AcrossView<Tile> keys_;
    DownView<Tile> values_;
    const ForwardLaunch& launch_;
    uint32_t query_at_;
    QueryRows query_[kTile.query_in_shared ? 1 : kRowTiles];
};

// fp32: each number is two of tf32, large + small, and a product large large + large small + small large. What is left
// out is 2^-22 of it.
template <class Shape>
class ForwardProducts<Shape, float> {
    static constexpr ForwardTile kTile = Shape::kTile;
    static constexpr int kDim = Shape::kDim, kRowTiles = Shape::kRowTiles;
    using Tile = typename Shape::Tile;
    using QueryTile = typename Shape::QueryTile;

  public:
    VLMK_DEVICE ForwardProducts(const Tile& keys, const Tile& values, const ForwardLaunch& launch)
        : keys_(keys, 0, 0), values_(values.address(lane_index() % 4 * 2, lane_index() / 4)), launch_(launch) {}

    VLMK_DEVICE void move(int bytes) {
        keys_ = keys_ + bytes;
        values_ += bytes;
    }
    VLMK_DEVICE bool are_before(const Tile& tile) const { return keys_.at < tile.address(0, 0); }
    VLMK_DEVICE bool exists(int column) const {
        return kTile.exact() || column < static_cast<int>(launch_.problem.head_dim);
    }
    VLMK_DEVICE void load_query(const QueryTile& queries, int row) {
        query_at_ = DownView<QueryTile>(queries, row, 0).at;
    }

    // In sums over 32 of the depth, so that rounding errors stay those of short sums.
    template <int kBlocks>
    VLMK_DEVICE void multiply_keys(Accumulator<> (&s)[kRowTiles][kBlocks], int row) const {
        Accumulator<> small[kRowTiles][kBlocks];
#pragma unroll 1
        for (int begin = 0; begin < kDim && exists(begin); begin += 32) {
            Accumulator<> large[kRowTiles][kBlocks];
#pragma unroll
            for (int k = 0; k < 32; k += 8) {
                if (!exists(begin + k)) break;
                SplitLeft q[kRowTiles];
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m)
                    q[m] = split(DownView<QueryTile>(query_at_).left8(16 * m, begin + k));
#pragma unroll
                for (int n = 0; n < kBlocks; n += 2) {
                    RightFragment<tf32, 8> b[2];
                    keys_.right8(row + 8 * n, begin + k, b);
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const SplitRight key = split(b[i]);
#pragma unroll
                        for (int m = 0; m < kRowTiles; ++m) {
                            mma_large(large[m][n + i], q[m], key);
                            mma_small(small[m][n + i], q[m], key);
                        }
                    }
                }
            }
            add_all(s, large);
        }
        add_all(s, small);
    }

    // The sum over keys may go in any order: where P has keys 2t and 2t + 1 in a lane, the left operand wants its
    // depths t and t + 4, so these are what the keys are called. Each block of keys is summed by itself and added to
    // the rest.
    template <int kBlocks>
    VLMK_DEVICE void add_values(typename Shape::Out& out, const Accumulator<> (&p)[kRowTiles][kBlocks], int row) const {
        SplitLeft weights[kRowTiles][kBlocks];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
            for (int k = 0; k < kBlocks; ++k) {
                const float* v = p[m][k].v;
                weights[m][k] = split(LeftFragment<tf32, 8>{
                    {__float_as_uint(v[0]), __float_as_uint(v[2]), __float_as_uint(v[1]), __float_as_uint(v[3])}});
            }
#pragma unroll
        for (int c = 0; c < kDim / 8; ++c) {
            if (!exists(8 * c)) break;
            SplitRight values[kBlocks];
#pragma unroll
            for (int k = 0; k < kBlocks; ++k) {
                const uint32_t at = values_ + Tile::offset(row + 8 * k, 8 * c);
                values[k] = split(RightFragment<tf32, 8>{
                    {load_shared<uint32_t>(at), load_shared<uint32_t>(at + Tile::offset(1, 0))}});
            }
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m) {
                Accumulator<> part;
#pragma unroll
                for (int k = 0; k < kBlocks; ++k) mma_small(part, weights[m][k], values[k]);
#pragma unroll
                for (int k = 0; k < kBlocks; ++k) mma_large(part, weights[m][k], values[k]);
                add(out[m][c], part);
            }
        }
    }

  private:
    template <int kBlocks>
    VLMK_DEVICE static void add_all(Accumulator<> (&s)[kRowTiles][kBlocks],
                                    const Accumulator<> (&part)[kRowTiles][kBlocks]) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
            for (int n = 0; n < kBlocks; ++n) add(s[m][n], part[m][n]);
    }

    AcrossView<Tile> keys_;
    uint32_t values_;  // of a lane's first value
    const ForwardLaunch& launch_;
    uint32_t query_at_;
};

}  // namespace vlmk::gpu
