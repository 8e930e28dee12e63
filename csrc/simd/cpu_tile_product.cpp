// The product on tile registers: blocks of up to 2 x 2 tiles of C, so that every tile of A and B is used twice.
#include "simd/product.h"

#if VLMK_BF16_TILES
namespace vlmk::VLMK_ISA {
namespace {

constexpr int64_t kUnitBytes = 4;

// A matrix of 4-byte numbers that tiles are taken from.
template <class T>
struct Matrix {
    T* data;
    int64_t row;

    T* at(int64_t i, int64_t j) const { return data + i * row + j; }
    int64_t stride() const { return row * kUnitBytes; }
};

// C (kDown x kAcross tiles) = A B, or +=. Registers 0 to 3 hold C, 4 and 5 A, 6 and 7 B.
template <int kDown, int kAcross>
void block(bool accumulate, int64_t depth, Matrix<const uint32_t> a, Matrix<const uint32_t> b, Matrix<float> c) {
    constexpr bool down = kDown > 1, across = kAcross > 1;
    if (accumulate) {
        load_tile<0>(c.at(0, 0), c.stride());
        if constexpr (across) load_tile<1>(c.at(0, kTileRows), c.stride());
        if constexpr (down) load_tile<2>(c.at(kTileRows, 0), c.stride());
        if constexpr (down && across) load_tile<3>(c.at(kTileRows, kTileRows), c.stride());
    } else {
        zero_tile<0>();
        if constexpr (across) zero_tile<1>();
        if constexpr (down) zero_tile<2>();
        if constexpr (down && across) zero_tile<3>();
    }
    for (int64_t k = 0; k < depth; k += kTileRows) {
        load_tile<4>(a.at(0, k), a.stride());
        load_tile<6>(b.at(k, 0), b.stride());
        multiply_tiles<0, 4, 6>();
        if constexpr (across) load_tile<7>(b.at(k, kTileRows), b.stride());
        if constexpr (across) multiply_tiles<1, 4, 7>();
        if constexpr (down) load_tile<5>(a.at(kTileRows, k), a.stride());
        if constexpr (down) multiply_tiles<2, 5, 6>();
        if constexpr (down && across) multiply_tiles<3, 5, 7>();
    }
    store_tile<0>(c.at(0, 0), c.stride());
    if constexpr (across) store_tile<1>(c.at(0, kTileRows), c.stride());
    if constexpr (down) store_tile<2>(c.at(kTileRows, 0), c.stride());
    if constexpr (down && across) store_tile<3>(c.at(kTileRows, kTileRows), c.stride());
}

// All rows of C, `kAcross` tiles of its columns: B's tiles come from the first-level cache after the first rows.
template <int kAcross>
void column_of_blocks(bool accumulate, int64_t rows, int64_t depth, Matrix<const uint32_t> a, Matrix<const uint32_t> b,
                      Matrix<float> c) {
    int64_t i = 0;
    for (; i + 2 * kTileRows <= rows; i += 2 * kTileRows)
        block<2, kAcross>(accumulate, depth, {a.at(i, 0), a.row}, b, {c.at(i, 0), c.row});
    if (i < rows) block<1, kAcross>(accumulate, depth, {a.at(i, 0), a.row}, b, {c.at(i, 0), c.row});
}

// `rows` is a multiple of the tile's.
void whole_tiles(bool accumulate, int64_t rows, Matrix<const uint32_t> a, const PackedB<Bf16Unit>& b, Matrix<float> c) {
    for (int64_t p = 0; p < b.panels.count; ++p) {
        const int64_t width = b.panels.width(p) * kLanes, first = b.panels.first_vector(p) * kLanes;
        const Matrix<const uint32_t> panel{b.panel(p), width};
        for (int64_t j = 0; j < width; j += 2 * kTileRows) {
            const Matrix<const uint32_t> right{panel.at(0, j), width};
            const Matrix<float> sums{c.at(0, first + j), c.row};
            if (j + kTileRows < width)
                column_of_blocks<2>(accumulate, rows, b.depth, a, right, sums);
            else
                column_of_blocks<1>(accumulate, rows, b.depth, a, right, sums);
        }
    }
}

// Fewer rows than a tile has, through copies with all of them.
void last_rows(bool accumulate, int64_t rows, Matrix<const uint32_t> a, const PackedB<Bf16Unit>& b, Matrix<float> c) {
    const int64_t columns = b.panels.padded_columns();
    const size_t left_bytes = static_cast<size_t>(b.depth * kUnitBytes),
                 sum_bytes = static_cast<size_t>(columns * kUnitBytes);
    Buffer<uint32_t> left(kTileRows * b.depth);
    Buffer<float> sums(kTileRows * columns);
    for (int64_t i = 0; i < kTileRows; ++i) {
        if (i < rows)
            std::memcpy(left.get() + i * b.depth, a.at(i, 0), left_bytes);
        else
            std::memset(left.get() + i * b.depth, 0, left_bytes);
        if (!accumulate) continue;
        if (i < rows)
            std::memcpy(sums.get() + i * columns, c.at(i, 0), sum_bytes);
        else
            std::memset(sums.get() + i * columns, 0, sum_bytes);
    }
    whole_tiles(accumulate, kTileRows, {left.get(), b.depth}, b, {sums.get(), columns});
    for (int64_t i = 0; i < rows; ++i) std::memcpy(c.at(i, 0), sums.get() + i * columns, sum_bytes);
}

}  // namespace

void tile_product(bool accumulate, int64_t rows, const uint32_t* left, int64_t left_row, const PackedB<Bf16Unit>& b,
                  float* sums, int64_t sums_row) {
    const Matrix<const uint32_t> a{left, left_row};
    const Matrix<float> c{sums, sums_row};
    const int64_t whole = rows / kTileRows * kTileRows;
    if (whole > 0) whole_tiles(accumulate, whole, a, b, c);
    if (whole < rows) last_rows(accumulate, rows - whole, {a.at(whole, 0), a.row}, b, {c.at(whole, 0), c.row});
}

}  // namespace vlmk::VLMK_ISA
#endif
