// The product on tile registers: blocks of up to 2 x 2 tiles of C, so that every tile of A and B is used twice or more.
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
using Left = Matrix<const uint32_t>;
using Right = Matrix<const uint32_t>;
using Sums = Matrix<float>;

// Registers 0 to 3 hold C (kDown x kAcross tiles), 4 and 5 A, 6 and 7 B.
template <int kDown, int kAcross>
struct Block {
    static constexpr bool kTwoDown = kDown > 1, kTwoAcross = kAcross > 1;

    static VLMK_INLINE void load_sums(const Sums& c) {
        load_tile<0>(c.at(0, 0), c.stride());
        if constexpr (kTwoAcross) load_tile<1>(c.at(0, kTileRows), c.stride());
        if constexpr (kTwoDown) load_tile<2>(c.at(kTileRows, 0), c.stride());
        if constexpr (kTwoDown && kTwoAcross) load_tile<3>(c.at(kTileRows, kTileRows), c.stride());
    }
    static VLMK_INLINE void zero_sums() {
        zero_tile<0>();
        if constexpr (kTwoAcross) zero_tile<1>();
        if constexpr (kTwoDown) zero_tile<2>();
        if constexpr (kTwoDown && kTwoAcross) zero_tile<3>();
    }
    static VLMK_INLINE void store_sums(const Sums& c) {
        store_tile<0>(c.at(0, 0), c.stride());
        if constexpr (kTwoAcross) store_tile<1>(c.at(0, kTileRows), c.stride());
        if constexpr (kTwoDown) store_tile<2>(c.at(kTileRows, 0), c.stride());
        if constexpr (kTwoDown && kTwoAcross) store_tile<3>(c.at(kTileRows, kTileRows), c.stride());
    }
    static VLMK_INLINE void load_left(const Left& a, int64_t k) {
        load_tile<4>(a.at(0, k), a.stride());
        if constexpr (kTwoDown) load_tile<5>(a.at(kTileRows, k), a.stride());
    }
    static VLMK_INLINE void load_right(const Right& b, int64_t k) {
        load_tile<6>(b.at(k, 0), b.stride());
        if constexpr (kTwoAcross) load_tile<7>(b.at(k, kTileRows), b.stride());
    }
    static VLMK_INLINE void multiply() {
        multiply_tiles<0, 4, 6>();
        if constexpr (kTwoAcross) multiply_tiles<1, 4, 7>();
        if constexpr (kTwoDown) multiply_tiles<2, 5, 6>();
        if constexpr (kTwoDown && kTwoAcross) multiply_tiles<3, 5, 7>();
    }

    // C += A B over `depth` units. Of nine products of parts three are too small for the sum and left out. From one to
    // the next only one operand changes. Of fp32 the small ones come first: they are rounded to their own size, not to
    // that of C.
    template <int kParts>
    static VLMK_INLINE void add_products(int64_t depth, const Left& a, const Right& b) {
        constexpr int64_t part = kTileRows, step = kParts * part;
        for (int64_t k = 0; k < depth; k += step) {
            if constexpr (kParts == 1) {
                load_left(a, k), load_right(b, k), multiply();
            } else if constexpr (kParts == 2) {
                load_left(a, k + part), load_right(b, k + part), multiply();
                load_right(b, k), multiply();
                load_left(a, k), multiply();
                load_right(b, k + part), multiply();
            } else {
                load_left(a, k), load_right(b, k + 2 * part), multiply();
                load_right(b, k + part), multiply();
                load_left(a, k + part), multiply();
                load_right(b, k), multiply();
                load_left(a, k + 2 * part), multiply();
            }
        }
        if constexpr (kParts == 3)
            for (int64_t k = 0; k < depth; k += step) load_left(a, k), load_right(b, k), multiply();
    }
};

// C += the sums in the registers, each of which was added up from zero.
template <class Shape>
VLMK_INLINE void add_sums(int64_t down, int64_t across, const Sums& c) {
    alignas(64) float sums[4 * kTileRows * kTileRows];
    const int64_t width = across * kTileRows;
    Shape::store_sums({sums, width});
    for (int64_t i = 0; i < down * kTileRows; ++i)
        for (int64_t j = 0; j < width; j += kLanes) store(c.at(i, j), load(c.at(i, j)) + load(sums + i * width + j));
}

// Products of two steps of depth at most, one row of tiles of C after the other: B stays in registers 4 to 7 for all of
// them, A is in 2 and 3, C in 0 and 1. A tile of C is added up and stored before the next one starts, for which
// multiplying and storing overlap most.
template <int kSteps>
void kept_right(bool accumulate, int64_t rows, const Left& a, const Right& b, const Sums& c) {
    constexpr bool kTwo = kSteps > 1;
    load_tile<4>(b.at(0, 0), b.stride());
    load_tile<6>(b.at(0, kTileRows), b.stride());
    if constexpr (kTwo) load_tile<5>(b.at(kTileRows, 0), b.stride());
    if constexpr (kTwo) load_tile<7>(b.at(kTileRows, kTileRows), b.stride());
    for (int64_t i = 0; i < rows; i += kTileRows) {
        float *first = c.at(i, 0), *second = c.at(i, kTileRows);
        load_tile<2>(a.at(i, 0), a.stride());
        if constexpr (kTwo) load_tile<3>(a.at(i, kTileRows), a.stride());
        accumulate ? load_tile<0>(first, c.stride()) : zero_tile<0>();
        multiply_tiles<0, 2, 4>();
        if constexpr (kTwo) multiply_tiles<0, 3, 5>();
        store_tile<0>(first, c.stride());
        accumulate ? load_tile<1>(second, c.stride()) : zero_tile<1>();
        multiply_tiles<1, 2, 6>();
        if constexpr (kTwo) multiply_tiles<1, 3, 7>();
        store_tile<1>(second, c.stride());
    }
}

// All rows of C, `kAcross` tiles of its columns: B's tiles come from the first-level cache after the first rows. In
// fp32 every stretch is summed from zero: in one long chain, rounding errors would pass the allowed ones.
template <int kParts, int kAcross>
void column_of_blocks(bool accumulate, int64_t rows, int64_t depth, const Left& a, const Right& b, const Sums& c) {
    constexpr bool kFromZero = kParts == 3;
    if constexpr (kParts == 1 && kAcross == 2) {
        if (depth == kTileRows) return kept_right<1>(accumulate, rows, a, b, c);
        if (depth == 2 * kTileRows) return kept_right<2>(accumulate, rows, a, b, c);
    }
    const auto block = [&](auto shape, int64_t down, int64_t i) {
        using Shape = decltype(shape);
        const Sums sums{c.at(i, 0), c.row};
        if (accumulate && !kFromZero)
            Shape::load_sums(sums);
        else
            Shape::zero_sums();
        Shape::template add_products<kParts>(depth, {a.at(i, 0), a.row}, b);
        if (accumulate && kFromZero)
            add_sums<Shape>(down, kAcross, sums);
        else
            Shape::store_sums(sums);
    };
    int64_t i = 0;
    for (; i + 2 * kTileRows <= rows; i += 2 * kTileRows) block(Block<2, kAcross>{}, 2, i);
    if (i < rows) block(Block<1, kAcross>{}, 1, i);
}

// Units of a column of B that stay in the first-level cache, whatever the number of parts.
constexpr int64_t kStretch = 12 * kTileRows;

// Of a shallow left-hand side so many rows pass all panels before the next ones do that they stay in the first-level
// cache, which panels pass once for them.
inline int64_t rows_at_once(int64_t rows, int64_t depth) {
    constexpr int64_t kKeptUnits = 2 * kTileRows * kStretch;  // 24 KiB
    if (depth == 0 || depth > kStretch) return rows;
    return kKeptUnits / depth / (2 * kTileRows) * (2 * kTileRows);
}

// `rows` is a multiple of the tile's.
template <int kParts>
void whole_tiles(bool accumulate, int64_t rows, const Left& a, const PackedB<TileUnit<kParts>>& b, const Sums& c) {
    const int64_t step = rows_at_once(rows, b.depth);
    for (int64_t row = 0; row < rows; row += step)
        for (int64_t p = 0; p < b.panels.count; ++p)
            for (int64_t k = 0; k < b.depth || k == 0; k += kStretch) {
                const int64_t height = rows - row < step ? rows - row : step,
                              depth = b.depth - k < kStretch ? b.depth - k : kStretch,
                              width = b.panels.width(p) * kLanes;
                const Left left{a.at(row, k), a.row};
                const Right right{b.panel(p) + k * width, width};
                const Sums sums{c.at(row, b.panels.first_vector(p) * kLanes), c.row};
                if (width > kTileRows)
                    column_of_blocks<kParts, 2>(accumulate || k > 0, height, depth, left, right, sums);
                else
                    column_of_blocks<kParts, 1>(accumulate || k > 0, height, depth, left, right, sums);
            }
}

// Fewer rows than a tile has, through copies with all of them.
template <int kParts>
void last_rows(bool accumulate, int64_t rows, const Left& a, const PackedB<TileUnit<kParts>>& b, const Sums& c) {
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
    whole_tiles<kParts>(accumulate, kTileRows, {left.get(), b.depth}, b, {sums.get(), columns});
    for (int64_t i = 0; i < rows; ++i) std::memcpy(c.at(i, 0), sums.get() + i * columns, sum_bytes);
}

}  // namespace

template <int kParts>
void tile_product(bool accumulate, int64_t rows, const uint32_t* left, int64_t left_row,
                  const PackedB<TileUnit<kParts>>& b, float* sums, int64_t sums_row) {
    const Left a{left, left_row};
    const Sums c{sums, sums_row};
    const int64_t whole = rows / kTileRows * kTileRows;
    if (whole > 0) whole_tiles<kParts>(accumulate, whole, a, b, c);
    if (whole < rows) last_rows<kParts>(accumulate, rows - whole, {a.at(whole, 0), a.row}, b, {c.at(whole, 0), c.row});
}

template void tile_product<1>(bool, int64_t, const uint32_t*, int64_t, const PackedB<TileUnit<1>>&, float*, int64_t);
template void tile_product<2>(bool, int64_t, const uint32_t*, int64_t, const PackedB<TileUnit<2>>&, float*, int64_t);
template void tile_product<3>(bool, int64_t, const uint32_t*, int64_t, const PackedB<TileUnit<3>>&, float*, int64_t);

}  // namespace vlmk::VLMK_ISA
#endif
