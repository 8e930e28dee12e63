// Products of tiles on the tensor cores of one warp. Depths and widths are any multiple of 8; none is padded. Tiles may
// use fewer columns than they have, a multiple of 16 that is known at run time.
#pragma once
#include "gpu/mma.cuh"
#include "gpu/tile_view.cuh"

namespace vlmk::gpu {

// Sums of 16 kRowBlocks rows and 8 kColumnBlocks columns.
template <int kRowBlocks, int kColumnBlocks>
using TileSum = Accumulator<>[kRowBlocks][kColumnBlocks];

// All of the depth of a left operand, in registers.
template <class T, int kRowBlocks, int kSteps>
using LeftRows = LeftFragment<T, 16>[kRowBlocks][kSteps];

// sum += A Y^T for one step of the depth: rows of Y from where its view is.
template <int kRowBlocks, int kColumnBlocks, class Y>
VLMK_DEVICE void add_step(TileSum<kRowBlocks, kColumnBlocks>& sum,
                          const LeftFragment<typename Y::T, 16> (&a)[kRowBlocks], const Y& y, int depth) {
#pragma unroll
    for (int n = 0; n < kColumnBlocks; n += 2) {
        const RightPair<typename Y::T> pair = y.right(8 * n, depth);
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) {
            mma(sum[m][n], a[m], pair.b[0]);
            mma(sum[m][n + 1], a[m], pair.b[1]);
        }
    }
}

// sum += X Y^T over the columns of both, from the rows where the views are.
template <int kRowBlocks, int kColumnBlocks, class X, class Y>
VLMK_DEVICE void add_product_transposed(TileSum<kRowBlocks, kColumnBlocks>& sum, const X& x, const Y& y,
                                        int used = X::Tile::kColumns) {
    using T = typename X::T;
    constexpr int kDepth = X::Tile::kColumns, kWhole = kDepth / 16 * 16;
#pragma unroll
    for (int k = 0; k < kWhole; k += 16) {
        if (k >= used) break;
        LeftFragment<T, 16> a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = x.left(16 * m, k);
        add_step(sum, a, y, k);
    }
    if constexpr (kDepth > kWhole) {
        LeftFragment<T, 8> a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = x.left_half(16 * m, kWhole);
#pragma unroll
        for (int n = 0; n < kColumnBlocks; n += 2) {
            RightFragment<T, 8> b[2];
            y.right_half(b, 8 * n, kWhole);
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                mma(sum[m][n], a[m], b[0]);
                mma(sum[m][n + 1], a[m], b[1]);
            }
        }
    }
}

// The same with X in registers.
template <int kRowBlocks, int kColumnBlocks, int kSteps, class Y>
VLMK_DEVICE void add_product_transposed(TileSum<kRowBlocks, kColumnBlocks>& sum,
                                        const LeftRows<typename Y::T, kRowBlocks, kSteps>& x, const Y& y) {
    static_assert(16 * kSteps == Y::Tile::kColumns, "both have the same depth");
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
        LeftFragment<typename Y::T, 16> a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = x[m][k];
        add_step(sum, a, y, 16 * k);
    }
}

// sum += A Y over the columns of Y: A in registers, 16 kSteps deep, meets the rows of Y from where its view is.
template <int kRowBlocks, int kColumnBlocks, int kSteps, class Y>
VLMK_DEVICE void add_product(TileSum<kRowBlocks, kColumnBlocks>& sum,
                             const LeftRows<typename Y::T, kRowBlocks, kSteps>& a, const Y& y,
                             int used = Y::Tile::kColumns) {
    static_assert(8 * kColumnBlocks == Y::Tile::kColumns, "the sum has the columns of Y");
#pragma unroll
    for (int n = 0; n + 1 < kColumnBlocks; n += 2) {
        if (8 * n >= used) break;
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
            const RightPair<typename Y::T> pair = y.right_transposed(16 * k, 8 * n);
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                mma(sum[m][n], a[m][k], pair.b[0]);
                mma(sum[m][n + 1], a[m][k], pair.b[1]);
            }
        }
    }
    if constexpr (kColumnBlocks % 2 == 1) {
        constexpr int kLast = kColumnBlocks - 1;
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
            const RightFragment<typename Y::T, 16> b = y.right_transposed_single(16 * k, 8 * kLast);
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) mma(sum[m][kLast], a[m][k], b);
        }
    }
}

}  // namespace vlmk::gpu
