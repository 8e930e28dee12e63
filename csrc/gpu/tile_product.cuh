// Products of tiles on the tensor cores of one warp. Depths and widths are any multiple of 8; none is padded. Tiles may
// use fewer columns than they have, a multiple of 16 that is known at run time.
#pragma once
#include "gpu/mma.cuh"
#include "gpu/operands.cuh"

namespace vlmk::gpu {

// Sums of 16 kRowBlocks rows and 8 kColumnBlocks columns.
template <int kRowBlocks, int kColumnBlocks>
using TileSum = Accumulator<>[kRowBlocks][kColumnBlocks];

// sum += X Y^T over the columns of both: rows of X from `row` on, rows of Y from `column` on.
template <int kRowBlocks, int kColumnBlocks, class X, class Y>
VLMK_DEVICE void add_product(TileSum<kRowBlocks, kColumnBlocks>& sum, const X& x, int row, const Y& y, int column,
                             int used = X::kColumns) {
    using T = typename X::Element;
    constexpr int kDepth = X::kColumns, kWhole = kDepth / 16 * 16;
#pragma unroll
    for (int k = 0; k < kWhole; k += 16) {
        if (k >= used) break;
        LeftFragment<T, 16> a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = load_left(x, row + 16 * m, k);
#pragma unroll
        for (int n = 0; n < kColumnBlocks; n += 2) {
            const RightPair<T> pair = load_right(y, column + 8 * n, k);
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                mma(sum[m][n], a[m], pair.b[0]);
                mma(sum[m][n + 1], a[m], pair.b[1]);
            }
        }
    }
    if constexpr (kDepth > kWhole) {
        static_assert(kColumnBlocks % 4 == 0, "the last 8 of an odd depth are loaded for 32 columns at a time");
        LeftFragment<T, 8> a[kRowBlocks];
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) a[m] = load_left_half(x, row + 16 * m, kWhole);
#pragma unroll
        for (int n = 0; n < kColumnBlocks; n += 4) {
            const RightHalves<T> four = load_right_halves(y, column + 8 * n, kWhole);
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int m = 0; m < kRowBlocks; ++m) mma(sum[m][n + i], a[m], four.b[i]);
        }
    }
}

// sum += A Y over the columns of Y: A in registers, 16 kSteps deep, Y's rows from `row` on.
template <int kRowBlocks, int kColumnBlocks, int kSteps, class Y>
VLMK_DEVICE void add_product(TileSum<kRowBlocks, kColumnBlocks>& sum,
                             const LeftFragment<typename Y::Element, 16> (&a)[kRowBlocks][kSteps], const Y& y, int row,
                             int used = Y::kColumns) {
    using T = typename Y::Element;
    static_assert(8 * kColumnBlocks == Y::kColumns, "the sum has the columns of Y");
#pragma unroll
    for (int n = 0; n + 1 < kColumnBlocks; n += 2) {
        if (8 * n >= used) break;
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
            const RightPair<T> pair = load_right_transposed(y, row + 16 * k, 8 * n);
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                mma(sum[m][n], a[m][k], pair.b[0]);
                mma(sum[m][n + 1], a[m][k], pair.b[1]);
            }
        }
    }
    if constexpr (kColumnBlocks % 2 == 1) {
        static_assert(kSteps % 2 == 0, "the last 8 of an odd width are loaded for 32 of the depth at a time");
        constexpr int kLast = kColumnBlocks - 1;
#pragma unroll
        for (int k = 0; k < kSteps; k += 2) {
            const RightPair<T> two = load_right_column(y, row + 16 * k, 8 * kLast);
#pragma unroll
            for (int m = 0; m < kRowBlocks; ++m) {
                mma(sum[m][kLast], a[m][k], two.b[0]);
                mma(sum[m][kLast], a[m][k + 1], two.b[1]);
            }
        }
    }
}

}  // namespace vlmk::gpu
