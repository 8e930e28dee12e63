// Products of tiles on the tensor cores of one warp. Depths and widths are any multiple of 8; none is padded. Of tiles
// whose last columns are not used, `used` says how many are: a multiple of 16 of 16-bit numbers, of 8 of fp32.
//
// fp32 numbers are split in two of tf32, and summed in short sums that are added to the rest: the tensor cores' own
// sums lose bits as they grow.
#pragma once
#include "gpu/shared_access.cuh"
#include "gpu/split_tf32.cuh"
#include "gpu/tile_view.cuh"

namespace vlmk::gpu {

// Sums of 16 kRowBlocks rows and 8 kColumnBlocks columns.
template <int kRowBlocks, int kColumnBlocks>
using TileSum = Accumulator<>[kRowBlocks][kColumnBlocks];

// A left operand in registers: 16 kRowBlocks rows, 8 kDepthBlocks of the depth.
template <class T, int kRowBlocks, int kDepthBlocks>
struct LeftRows {
    static_assert(kDepthBlocks % 2 == 0, "fragments are 16 deep");
    LeftFragment<T, 16> a[kRowBlocks][kDepthBlocks / 2];
};
template <int kRowBlocks, int kDepthBlocks>
struct LeftRows<float, kRowBlocks, kDepthBlocks> {
    SplitLeft a[kRowBlocks][kDepthBlocks];
};

// Results as the left operand of a next product. fp32: where a lane has columns 2t and 2t + 1, the operand wants its
// depths t and t + 4, so these are what the columns are called; right operands call their rows the same.
template <class T, int kRowBlocks, int kColumnBlocks>
VLMK_DEVICE LeftRows<T, kRowBlocks, kColumnBlocks> as_left_rows(const TileSum<kRowBlocks, kColumnBlocks>& sum) {
    LeftRows<T, kRowBlocks, kColumnBlocks> left;
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
        if constexpr (sizeof(T) == 2) {
#pragma unroll
            for (int n = 0; n < kColumnBlocks; n += 2) left.a[m][n / 2] = as_left<T>(sum[m][n], sum[m][n + 1]);
        } else {
#pragma unroll
            for (int n = 0; n < kColumnBlocks; ++n) {
                const float* v = sum[m][n].v;
                left.a[m][n] = split(LeftFragment<tf32, 8>{
                    {__float_as_uint(v[0]), __float_as_uint(v[2]), __float_as_uint(v[1]), __float_as_uint(v[3])}});
            }
        }
    return left;
}

// A left operand out of a tile: of rows by depth, from where its view is,
template <int kRowBlocks, int kDepthBlocks, class X>
VLMK_DEVICE LeftRows<typename X::Element, kRowBlocks, kDepthBlocks> load_left_rows(const TileView<X>& x) {
    LeftRows<typename X::Element, kRowBlocks, kDepthBlocks> left;
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
        if constexpr (sizeof(typename X::Element) == 2) {
#pragma unroll
            for (int k = 0; k < kDepthBlocks / 2; ++k) left.a[m][k] = x.down.left(16 * m, 16 * k);
        } else {
#pragma unroll
            for (int k = 0; k < kDepthBlocks; ++k) left.a[m][k] = split(x.down.left8(16 * m, 8 * k));
        }
    return left;
}

// and of depth by rows. fp32: depths t and t + 4 are the tile's rows 2t and 2t + 1, as in add_product.
template <int kRowBlocks, int kDepthBlocks, class X>
VLMK_DEVICE LeftRows<typename X::Element, kRowBlocks, kDepthBlocks> load_left_rows_transposed(const TileView<X>& x) {
    LeftRows<typename X::Element, kRowBlocks, kDepthBlocks> left;
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
        if constexpr (sizeof(typename X::Element) == 2) {
#pragma unroll
            for (int k = 0; k < kDepthBlocks / 2; ++k) left.a[m][k] = x.across.left(16 * k, 16 * m);
        } else {
#pragma unroll
            for (int k = 0; k < kDepthBlocks; ++k) {
                LeftFragment<tf32, 8> a;
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    a.r[i] = load_shared<uint32_t>(x.element + X::offset(8 * k + i / 2, 16 * m + i % 2 * 8));
                left.a[m][k] = split(a);
            }
        }
    return left;
}

// sum += A Y^T for 16 of the depth, 16-bit numbers: rows of Y from where its view is.
template <int kRowBlocks, int kColumnBlocks, class Tile, class T>
VLMK_DEVICE void add_step(TileSum<kRowBlocks, kColumnBlocks>& sum, const LeftFragment<T, 16> (&a)[kRowBlocks],
                          const TileView<Tile>& y, int depth) {
#pragma unroll
    for (int n = 0; n < kColumnBlocks; n += 2) {
        RightFragment<T, 16> b[2];
        y.across.right(8 * n, depth, b);
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
            mma(sum[m][n], a[m], b[0]);
            mma(sum[m][n + 1], a[m], b[1]);
        }
    }
}

template <int kRowBlocks, int kColumnBlocks>
VLMK_DEVICE void add_all(TileSum<kRowBlocks, kColumnBlocks>& sum, const TileSum<kRowBlocks, kColumnBlocks>& part) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
#pragma unroll
        for (int n = 0; n < kColumnBlocks; ++n) add(sum[m][n], part[m][n]);
}

// fp32: sum += X Y^T for the 32 of the depth from `begin` on, small parts apart.
template <int kRowBlocks, int kColumnBlocks, class X, class Y>
VLMK_DEVICE void add_steps(TileSum<kRowBlocks, kColumnBlocks>& sum, TileSum<kRowBlocks, kColumnBlocks>& small,
                           const TileView<X>& x, const TileView<Y>& y, int begin, int used) {
    TileSum<kRowBlocks, kColumnBlocks> large;
#pragma unroll
    for (int k = 0; k < 32; k += 8) {
        if (begin + k >= used) break;
        SplitLeft a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = split(x.down.left8(16 * m, k));
#pragma unroll
        for (int n = 0; n < kColumnBlocks; n += 2) {
            RightFragment<tf32, 8> b[2];
            y.across.right8(8 * n, k, b);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const SplitRight right = split(b[i]);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) {
                    mma_large(large[m][n + i], a[m], right);
                    mma_small(small[m][n + i], a[m], right);
                }
            }
        }
    }
    add_all(sum, large);
}

// sum += A B of fp32 for 32 of the depth; left(row, depth) and right(depth, column) give the fragments.
template <int kRowBlocks, int kColumnBlocks, class Left, class Right>
VLMK_DEVICE void add_split_product(TileSum<kRowBlocks, kColumnBlocks>& sum, const Left& left, const Right& right) {
    TileSum<kRowBlocks, kColumnBlocks> large, small;
#pragma unroll
    for (int k = 0; k < 32; k += 8) {
        SplitLeft a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = split(left(16 * m, k));
#pragma unroll
        for (int n = 0; n < kColumnBlocks; ++n) {
            const SplitRight b = split(right(k, 8 * n));
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                mma_large(large[m][n], a[m], b);
                mma_small(small[m][n], a[m], b);
            }
        }
    }
    add_all(sum, large);
    add_all(sum, small);
}

// sum += X Y^T over the columns of both, from the rows where the views are.
template <int kRowBlocks, int kColumnBlocks, class X, class Y>
VLMK_DEVICE void add_product_transposed(TileSum<kRowBlocks, kColumnBlocks>& sum, const TileView<X>& x,
                                        const TileView<Y>& y, int used = X::kColumns) {
    using T = typename X::Element;
    constexpr int kDepth = X::kColumns, kWhole = kDepth / 16 * 16;
    if constexpr (sizeof(T) == 4) {
        TileSum<kRowBlocks, kColumnBlocks> small;
#pragma unroll 1
        for (int begin = 0; begin < used; begin += 32)
            add_steps(sum, small, x + X::offset(0, begin), y + Y::offset(0, begin), begin, used);
        add_all(sum, small);
    } else {
#pragma unroll
        for (int k = 0; k < kWhole; k += 16) {
            if (k >= used) break;
            LeftFragment<T, 16> a[kRowBlocks];
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) a[m] = x.down.left(16 * m, k);
            add_step(sum, a, y, k);
        }
        if constexpr (kDepth > kWhole) {
            LeftFragment<T, 8> a[kRowBlocks];
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) a[m] = x.down.left_half(16 * m, kWhole);
#pragma unroll
            for (int n = 0; n < kColumnBlocks; n += 2) {
                RightFragment<T, 8> b[2];
                y.down.right_of_half_depth(8 * n, kWhole, b);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) {
                    mma(sum[m][n], a[m], b[0]);
                    mma(sum[m][n + 1], a[m], b[1]);
                }
            }
        }
    }
}

// The same with X in registers, 16-bit numbers.
template <int kRowBlocks, int kColumnBlocks, class Y>
VLMK_DEVICE void add_product_transposed(TileSum<kRowBlocks, kColumnBlocks>& sum,
                                        const LeftRows<typename Y::Element, kRowBlocks, Y::kColumns / 8>& x,
                                        const TileView<Y>& y) {
#pragma unroll
    for (int k = 0; k < Y::kColumns; k += 16) {
        LeftFragment<typename Y::Element, 16> a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = x.a[m][k / 16];
        add_step(sum, a, y, k);
    }
}

// sum += A Y: A in registers, 8 kDepthBlocks deep, meets the rows of Y from where its view is, and as many of its
// columns as the sum has.
template <int kRowBlocks, int kColumnBlocks, int kDepthBlocks, class Y>
VLMK_DEVICE void add_product(TileSum<kRowBlocks, kColumnBlocks>& sum,
                             const LeftRows<typename Y::Element, kRowBlocks, kDepthBlocks>& left, const TileView<Y>& y,
                             int used = Y::kColumns) {
    using T = typename Y::Element;
    static_assert(8 * kColumnBlocks <= Y::kColumns, "the sum has columns of Y");
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int n = 0; n < kColumnBlocks; ++n) {
            if (8 * n >= used) break;
            SplitRight right[kDepthBlocks];
#pragma unroll
            for (int k = 0; k < kDepthBlocks; ++k) {
                const uint32_t at = y.element + Y::offset(8 * k, 8 * n);
                right[k] = split(
                    RightFragment<tf32, 8>{{load_shared<uint32_t>(at), load_shared<uint32_t>(at + Y::offset(1, 0))}});
            }
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                Accumulator<> part;
#pragma unroll
                for (int k = 0; k < kDepthBlocks; ++k) mma_small(part, left.a[m][k], right[k]);
#pragma unroll
                for (int k = 0; k < kDepthBlocks; ++k) mma_large(part, left.a[m][k], right[k]);
                add(sum[m][n], part);
            }
        }
    } else {
        constexpr int kSteps = kDepthBlocks / 2;
#pragma unroll
        for (int n = 0; n + 1 < kColumnBlocks; n += 2) {
            if (8 * n >= used) break;
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                RightFragment<T, 16> b[2];
                y.down.right(16 * k, 8 * n, b);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) {
                    mma(sum[m][n], left.a[m][k], b[0]);
                    mma(sum[m][n + 1], left.a[m][k], b[1]);
                }
            }
        }
        if constexpr (kColumnBlocks % 2 == 1) {
            constexpr int kLast = kColumnBlocks - 1;
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                const RightFragment<T, 16> b = y.down.right_half(16 * k, 8 * kLast);
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) mma(sum[m][kLast], left.a[m][k], b);
            }
        }
    }
}

}  // namespace vlmk::gpu
