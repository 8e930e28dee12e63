// How the results of a warp's rows leave: as a part of the keys' in the workspace, or as rows of the output, through
// shared memory so that they leave in whole.
#pragma once
#include "attention/copy_place.cuh"
#include "attention/forward_warp.cuh"

namespace vlmk::gpu {

template <class Shape>
VLMK_DEVICE void store_lse(const ForwardWarp<Shape>& warp, int first_row) {
    if (warp.block.p.lse == nullptr || lane_index() % 4 != 0) return;
#pragma unroll
    for (int r = 0; r < Shape::kRows; ++r) {
        const int row = first_row + 8 * r + lane_index() / 4;
        if (row < warp.block.rows) warp.block.p.lse[warp.block.number(row)] = warp.sum[r];
    }
}

template <class Shape>
VLMK_DEVICE void store_part(const ForwardWarp<Shape>& warp, int first_row) {
    const AttentionProblem& p = warp.block.p;
    const int64_t rows = partial_rows(p), head_dim = p.head_dim;
    float* const lses = p.workspace + warp.block.launch.splits * rows * head_dim;
#pragma unroll
    for (int r = 0; r < Shape::kRows; ++r) {
        const int row = first_row + 8 * r + lane_index() / 4;
        if (row >= warp.block.rows) continue;
        const int64_t at = warp.block.split * rows + warp.block.number(row);
        if (lane_index() % 4 == 0) lses[at] = warp.sum[r];
        float* const to = p.workspace + at * head_dim + lane_index() % 4 * 2;
#pragma unroll
        for (int c = 0; c < Shape::kDim / 8; ++c) {
            const float* o = warp.out[r / 2][c].v + r % 2 * 2;
            if (8 * c < head_dim) *reinterpret_cast<float2*>(to + 8 * c) = make_float2(o[0], o[1]);
        }
    }
}

// Two neighbours of a row, rounded, to shared memory.
template <class T>
VLMK_DEVICE void store_pair(uint32_t address, float first, float second) {
    store_shared(address, pack<T>(first, second));
}
template <>
VLMK_DEVICE void store_pair<float>(uint32_t address, float first, float second) {
    store_shared(address, first, second);
}

// The blocks of 8 columns [begin, end) of a row tile, to rows and columns of a tile in shared memory.
template <class Shape, class Tile>
VLMK_DEVICE void stage(const ForwardWarp<Shape>& warp, int m, int begin, int end, const Tile& tile, int first_row) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int c = begin; c < end; ++c) {
            const float* o = warp.out[m][c].v + 2 * half;
            const int row = first_row + 8 * half + lane_index() / 4, column = 8 * (c - begin) + lane_index() % 4 * 2;
            if (warp.products.exists(8 * c)) store_pair<typename Shape::T>(tile.address(row, column), o[0], o[1]);
        }
}

// Through rows of a tile that nobody else reads or writes any more.
template <class Shape, class Tile>
VLMK_DEVICE void store_rows(const ForwardWarp<Shape>& warp, int first_row, const Tile& tile) {
    using T = typename Shape::T;
#pragma unroll
    for (int m = 0; m < Shape::kRowTiles; ++m) stage(warp, m, 0, Shape::kDim / 8, tile, first_row + 16 * m);
    __syncwarp();
    const int chunks = (Shape::kTile.exact() ? Shape::kDim : static_cast<int>(warp.block.p.head_dim)) / Tile::kChunk;
    const int count = min(Shape::kTile.warp_rows(), warp.block.rows - first_row) * chunks;
    constexpr int kLanes = CopyRows<Tile>::kLanes;
#pragma unroll 1
    for (int i = lane_index() < kLanes ? lane_index() : count; i < count; i += kLanes) {
        const int row = first_row + i / chunks, column = i % chunks * Tile::kChunk;
        *reinterpret_cast<uint4*>(warp.block.template out<T>(row) + column) =
            load_shared<uint4>(tile.address(row, column));
    }
}

}  // namespace vlmk::gpu
