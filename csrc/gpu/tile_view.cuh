// A tile with linear rows as one lane of ldmatrix reads it: the row and chunk that the lane points at are part of the
// address, so that a loop over a tile needs one register for each of the two ways to read it, and constants for all
// else.
#pragma once
#include "gpu/fragments.cuh"
#include "gpu/ldmatrix.cuh"
#include "gpu/shared_access.cuh"
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

// Lanes go down 16 rows, then to the next 8 columns: left operands, and right ones of a tile of depth by columns.
template <class Tile_>
struct DownView {
    using Tile = Tile_;
    using T = typename Tile::Element;
    uint32_t at;

    VLMK_DEVICE DownView(const Tile& tile, int row, int column)
        : at(tile.address(row + lane_index() % 16, column + lane_index() / 16 * Tile::kChunk)) {}
    VLMK_DEVICE explicit DownView(uint32_t address) : at(address) {}

    // The same place in another tile, or further rows.
    VLMK_DEVICE DownView operator+(int bytes) const { return DownView(at + bytes); }

    VLMK_DEVICE LeftFragment<T, 16> left(int row, int column) const {
        LeftFragment<T, 16> a;
        load_matrices(a.r, at + Tile::offset(row, column));
        return a;
    }
    // The last 8 columns of an odd width.
    VLMK_DEVICE LeftFragment<T, 8> left_half(int row, int column) const {
        LeftFragment<T, 8> a;
        load_matrices(a.r, at + Tile::offset(row, column));
        return a;
    }
    // 16 rows and 8 of the depth of fp32, of which 4 are a chunk of 8 16-bit numbers.
    VLMK_DEVICE LeftFragment<tf32, 8> left8(int row, int column) const {
        static_assert(sizeof(T) == 4, "of fp32");
        LeftFragment<tf32, 8> a;
        load_matrices(a.r, at + Tile::offset(row, column));
        return a;
    }
    // 16 of the depth by 16 columns.
    VLMK_DEVICE void right(int row, int column, RightFragment<T, 16> (&b)[2]) const {
        uint32_t r[4];
        load_matrices<true>(r, at + Tile::offset(row, column));
        b[0] = {{r[0], r[1]}};
        b[1] = {{r[2], r[3]}};
    }
    VLMK_DEVICE RightFragment<T, 16> right_half(int row, int column) const {
        RightFragment<T, 16> b;
        load_matrices<true>(b.r, at + Tile::offset(row, column));
        return b;
    }
    // Depth and columns exchanged: 16 columns are rows of the tile, its last 8 columns the depth.
    VLMK_DEVICE void right_of_half_depth(int row, int column, RightFragment<T, 8> (&b)[2]) const {
        uint32_t r[2];
        load_matrices(r, at + Tile::offset(row, column));
        b[0] = {{r[0]}};
        b[1] = {{r[1]}};
    }
};

// Lanes go down 8 rows, to the next 8 columns, then to the next 8 rows: right operands of a tile of columns by depth,
// and left ones of a tile of depth by rows.
template <class Tile_>
struct AcrossView {
    using Tile = Tile_;
    using T = typename Tile::Element;
    uint32_t at;

    VLMK_DEVICE AcrossView(const Tile& tile, int row, int column)
        : at(tile.address(row + lane_index() % 8 + lane_index() / 16 * 8,
                          column + lane_index() / 8 % 2 * Tile::kChunk)) {}
    VLMK_DEVICE explicit AcrossView(uint32_t address) : at(address) {}

    VLMK_DEVICE AcrossView operator+(int bytes) const { return AcrossView(at + bytes); }

    // 16 columns, which are rows of the tile, by 16 of the depth.
    VLMK_DEVICE void right(int row, int column, RightFragment<T, 16> (&b)[2]) const {
        uint32_t r[4];
        load_matrices(r, at + Tile::offset(row, column));
        b[0] = {{r[0], r[1]}};
        b[1] = {{r[2], r[3]}};
    }
    // 16 columns by 8 of the depth of fp32.
    VLMK_DEVICE void right8(int row, int column, RightFragment<tf32, 8> (&b)[2]) const {
        static_assert(sizeof(T) == 4, "of fp32");
        uint32_t r[4];
        load_matrices(r, at + Tile::offset(row, column));
        b[0] = {{r[0], r[1]}};
        b[1] = {{r[2], r[3]}};
    }
    VLMK_DEVICE LeftFragment<T, 16> left(int row, int column) const {
        LeftFragment<T, 16> a;
        load_matrices<true>(a.r, at + Tile::offset(row, column));
        return a;
    }
};

// A tile of fp32, depth by rows or columns, as one lane reads it word by word: what ldmatrix would transpose of 16-bit
// numbers. Of rows in WordPitch without bank conflicts.
template <class Tile_>
struct WordView {
    using Tile = Tile_;
    uint32_t at;

    VLMK_DEVICE WordView(const Tile& tile, int row, int column)
        : at(tile.address(row + lane_index() % 4, column + lane_index() / 4)) {}
    VLMK_DEVICE explicit WordView(uint32_t address) : at(address) {}

    VLMK_DEVICE WordView operator+(int bytes) const { return WordView(at + bytes); }

    // 8 of the depth, which are rows of the tile, by 16 rows.
    VLMK_DEVICE LeftFragment<tf32, 8> left8(int row, int column) const {
        return {{word(row, column), word(row, column + 8), word(row + 4, column), word(row + 4, column + 8)}};
    }
    // 8 of the depth by 8 columns.
    VLMK_DEVICE RightFragment<tf32, 8> right8(int row, int column) const {
        return {{word(row, column), word(row + 4, column)}};
    }

  private:
    VLMK_DEVICE uint32_t word(int row, int column) const {
        return load_shared<uint32_t>(at + Tile::offset(row, column));
    }
};

// A tile in every way that products read it; what a loop does not use costs nothing.
template <class Tile_>
struct TileView {
    using Tile = Tile_;
    using T = typename Tile::Element;
    DownView<Tile> down;
    AcrossView<Tile> across;
    uint32_t element;  // of fp32 as a right operand, depth by columns: the lane's column, and the first of its two rows

    VLMK_DEVICE explicit TileView(const Tile& tile, int row = 0, int column = 0)
        : down(tile, row, column),
          across(tile, row, column),
          element(tile.address(row + lane_index() % 4 * 2, column + lane_index() / 4)) {}

    // Further down in memory: other rows or columns, or the same place of a tile behind this one.
    VLMK_DEVICE TileView operator+(int bytes) const { return {down + bytes, across + bytes, element + bytes}; }

  private:
    VLMK_DEVICE TileView(const DownView<Tile>& d, const AcrossView<Tile>& a, uint32_t e)
        : down(d), across(a), element(e) {}
};

}  // namespace vlmk::gpu
