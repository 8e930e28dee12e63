// A shared tile as one lane of ldmatrix reads it: the row and chunk that the lane points at are part of the address, so
// that a loop over a tile needs one register for each of the two ways to read it, and constants for all else. Rows must
// be linear (OddPitch). Blocks start at (row, column) from where the view is.
#pragma once
#include "gpu/operands.cuh"

namespace vlmk::gpu {

template <class Tile_>
class TileView {
  public:
    using Tile = Tile_;
    using T = typename Tile::Element;

    VLMK_DEVICE explicit TileView(const Tile& tile, int row = 0)
        : down_(tile.address(row + lane_index() % 16, lane_index() / 16 * 8)),
          across_(tile.address(row + lane_index() % 8 + lane_index() / 16 * 8, lane_index() / 8 % 2 * 8)) {}

    // Further down in memory: other rows, or the same place of a tile behind this one.
    VLMK_DEVICE TileView operator+(int bytes) const { return {down_ + bytes, across_ + bytes}; }
    VLMK_DEVICE static constexpr int rows(int count) { return Tile::offset(count, 0); }

    // A of 16 rows and 16, or the last 8, of the depth, from a tile of rows by depth.
    VLMK_DEVICE LeftFragment<T, 16> left(int row, int column) const {
        LeftFragment<T, 16> a;
        load_matrices(a.r, down_ + Tile::offset(row, column));
        return a;
    }
    VLMK_DEVICE LeftFragment<T, 8> left_half(int row, int column) const {
        LeftFragment<T, 8> a;
        load_matrices(a.r, down_ + Tile::offset(row, column));
        return a;
    }
    // A of 16 rows and 16 of the depth, from a tile of depth by rows.
    VLMK_DEVICE LeftFragment<T, 16> left_transposed(int row, int column) const {
        LeftFragment<T, 16> a;
        load_matrices<true>(a.r, across_ + Tile::offset(row, column));
        return a;
    }

    // Two neighbouring B of 8 columns and 16 of the depth, from a tile of columns by depth.
    VLMK_DEVICE RightPair<T> right(int row, int column) const {
        uint32_t r[4];
        load_matrices(r, across_ + Tile::offset(row, column));
        return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
    }
    // The same of the last 8 of the depth.
    VLMK_DEVICE void right_half(RightFragment<T, 8> (&b)[2], int row, int column) const {
        uint32_t r[2];
        load_matrices(r, down_ + Tile::offset(row, column));
        b[0] = {{r[0]}}, b[1] = {{r[1]}};
    }
    // Two neighbouring B of 8 columns and 16 of the depth, from a tile of depth by columns, and a single one.
    VLMK_DEVICE RightPair<T> right_transposed(int row, int column) const {
        uint32_t r[4];
        load_matrices<true>(r, down_ + Tile::offset(row, column));
        return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
    }
    VLMK_DEVICE RightFragment<T, 16> right_transposed_single(int row, int column) const {
        RightFragment<T, 16> b;
        load_matrices<true>(b.r, down_ + Tile::offset(row, column));
        return b;
    }

  private:
    VLMK_DEVICE TileView(uint32_t down, uint32_t across) : down_(down), across_(across) {}

    uint32_t down_, across_;
};

}  // namespace vlmk::gpu
