// Fragments of 16-bit elements out of shared tiles, as few ldmatrix as possible. (row, column) is where the block
// starts in the tile; "transposed" reads a tile that holds the operand's transpose. For attention: S = Q K^T is left(Q)
// times right(K), O = P V is as_left(P) times right_transposed(V).
#pragma once
#include "gpu/fragments.cuh"
#include "gpu/ldmatrix.cuh"
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

// A of 16 rows and 16 of the depth, from a tile of rows by depth.
template <class Tile>
VLMK_DEVICE LeftFragment<typename Tile::Element, 16> load_left(const Tile& tile, int row, int column) {
    const int lane = lane_index();
    LeftFragment<typename Tile::Element, 16> a;
    load_matrices(a.r, tile.address(row + lane % 16, column + lane / 16 * 8));
    return a;
}

// The same with 8 of the depth, the last of a head_dim that is an odd multiple of 8.
template <class Tile>
VLMK_DEVICE LeftFragment<typename Tile::Element, 8> load_left_half(const Tile& tile, int row, int column) {
    const int lane = lane_index();
    LeftFragment<typename Tile::Element, 8> a;
    load_matrices(a.r, tile.address(row + lane % 16, column));
    return a;
}

// A of 16 rows and 16 of the depth, from a tile of depth by rows.
template <class Tile>
VLMK_DEVICE LeftFragment<typename Tile::Element, 16> load_left_transposed(const Tile& tile, int row, int column) {
    const int lane = lane_index();
    LeftFragment<typename Tile::Element, 16> a;
    load_matrices<true>(a.r, tile.address(row + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
    return a;
}

// Two neighbouring B of 8 columns and 16 of the depth, from a tile of columns by depth.
template <class T>
struct RightPair {
    RightFragment<T, 16> b[2];
};
template <class Tile>
VLMK_DEVICE RightPair<typename Tile::Element> load_right(const Tile& tile, int row, int column) {
    const int lane = lane_index();
    uint32_t r[4];
    load_matrices(r, tile.address(row + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
    return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
}

// The same from a tile of depth by columns.
template <class Tile>
VLMK_DEVICE RightPair<typename Tile::Element> load_right_transposed(const Tile& tile, int row, int column) {
    const int lane = lane_index();
    uint32_t r[4];
    load_matrices<true>(r, tile.address(row + lane % 16, column + lane / 16 * 8));
    return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
}

// Four neighbouring B of 8 columns and 8 of the depth, from a tile of columns by depth: the tail of a head_dim costs a
// quarter of an instruction a B.
template <class T>
struct RightHalves {
    RightFragment<T, 8> b[4];
};
template <class Tile>
VLMK_DEVICE RightHalves<typename Tile::Element> load_right_halves(const Tile& tile, int row, int column) {
    uint32_t r[4];
    load_matrices(r, tile.address(row + lane_index(), column));
    return {{{{r[0]}}, {{r[1]}}, {{r[2]}}, {{r[3]}}}};
}

// One B of 8 columns for two steps of 16 of the depth, from a tile of depth by columns: the odd column block of a
// head_dim.
template <class Tile>
VLMK_DEVICE RightPair<typename Tile::Element> load_right_column(const Tile& tile, int row, int column) {
    uint32_t r[4];
    load_matrices<true>(r, tile.address(row + lane_index(), column));
    return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
}

}  // namespace vlmk::gpu
