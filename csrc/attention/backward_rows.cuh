// Gradients on their way from registers to global memory, in whole sectors.
#pragma once
#include "attention/problem.h"
#include "gpu/shared_access.cuh"
#include "gpu/tile_product.cuh"

namespace vlmk::gpu {

template <class T>
VLMK_DEVICE void store_pair(uint32_t to, float first, float second) {
    if constexpr (sizeof(T) == 4)
        store_shared(to, first, second);
    else
        store_shared(to, pack<T>(first, second));
}

// A warp's rows of a gradient, through the rows [row, row + 16 kM) of a tile that the warp alone uses, to the rows
// before `rows` of `to`.
template <int kM, int kColumnBlocks, class Tile>
VLMK_DEVICE void write_rows(const TileSum<kM, kColumnBlocks>& gradient, float scale, const Tile& tile, int row,
                            typename Tile::Element* to, int64_t stride, int rows, int head_dim) {
    using T = typename Tile::Element;
    constexpr int kChunks = Tile::kColumns / Tile::kChunk;
    const int lane = lane_index();
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kColumnBlocks; ++n)
#pragma unroll
            for (int i = 0; i < 4; i += 2)
                store_pair<T>(tile.address(row + 16 * m + Accumulator<>::row(i), 8 * n + Accumulator<>::column(i)),
                              gradient[m][n].v[i] * scale, gradient[m][n].v[i + 1] * scale);
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < 16 * kM * kChunks; i += kWarpLanes) {
        const int r = row + i / kChunks, column = i % kChunks * Tile::kChunk;
        if (r < rows && column < head_dim)
            *reinterpret_cast<uint4*>(to + r * stride + column) = load_shared<uint4>(tile.address(r, column));
    }
    __syncwarp();
}

// 16 rows of a gradient straight from registers: the lanes of a pair trade blocks, so that each has 4 neighbours of a
// row, and 4 lanes a sector.
template <class T>
class RowWriter {
  public:
    VLMK_DEVICE RowWriter(T* first, const HeadTensor& t)
        : to_(first + int64_t{Accumulator<>::row(0)} * t.row_stride + (odd() ? 8 : 0) + lane_index() % 4 / 2 * 4),
          stride_(static_cast<int>(t.row_stride)) {}

    template <int kColumnBlocks>
    VLMK_DEVICE void write(const TileSum<1, kColumnBlocks>& gradient, float scale, int rows) const {
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            T* to = to_ + int64_t{4 * i} * stride_;
#pragma unroll
            for (int n = 0; n < kColumnBlocks; n += 2) {
                const Accumulator<>&left = gradient[0][n], &right = gradient[0][n + 1];
                const uint32_t low = pack<T>(left.v[i] * scale, left.v[i + 1] * scale);
                const uint32_t high = pack<T>(right.v[i] * scale, right.v[i + 1] * scale);
                const uint32_t traded = __shfl_xor_sync(kWholeWarp, odd() ? low : high, 1);
                if (Accumulator<>::row(i) < rows)
                    *reinterpret_cast<uint2*>(to + 8 * n) = odd() ? make_uint2(traded, high) : make_uint2(low, traded);
            }
        }
    }
    VLMK_DEVICE void advance(int rows) { to_ += int64_t{rows} * stride_; }

  private:
    VLMK_DEVICE static bool odd() { return lane_index() % 2 == 1; }

    T* to_;
    int stride_;
};

}  // namespace vlmk::gpu
