// The matrix product shared by all operations: C (+)= A B with B packed into panels, C in fp32.
//
// Everything is counted in 4-byte units along the summed dimension. A unit is one float, or a pair of bf16 where the
// instruction set multiplies pairs (AVX-512-BF16, AMX); the loops are the same for both. A is read in place by
// broadcasting units (AMX: as tiles), B is packed once and read as vectors (tiles):
//
//     panel 0: columns 0 .. w0, panel 1: the next w1, ...; inside a panel unit k of all its columns is contiguous.
#pragma once
#include "core/buffer.h"
#include "simd/convert.h"
#include "simd/tiles.h"
#include "simd/vec.h"

namespace vlmk::VLMK_ISA {

// The register tile: kRows x kPanelVectors accumulators, plus one row of B and one broadcast of A, fill the register
// file (32 registers with 16 lanes, else 16). Blocks of tile registers are two tiles wide.
constexpr int kRows = 6;
#if VLMK_BF16_TILES
constexpr int kPanelVectors = 2;
#else
constexpr int kPanelVectors = kLanes == 16 ? 4 : 2;
#endif

struct F32Unit {
    using Unit = float;
    using Reg = Vec;
    static constexpr int64_t kDepth = 1;      // elements in a unit
    static constexpr int64_t kDepthStep = 1;  // depths are multiples of this many units, zeros behind the elements
    static constexpr int kParts = 1;          // numbers that an element is written as the sum of
    static constexpr bool kTiles = false;
    static Reg splat_unit(const Unit* a) { return splat(*a); }
    static Vec multiply_add(Vec sum, Reg a, Reg b) { return sum + a * b; }
};

struct Bf16Unit {
    using Unit = uint32_t;
    using Reg = UintVec;
    static constexpr int64_t kDepth = 2;
    static constexpr int64_t kDepthStep = 1;
    static constexpr int kParts = 1;
    static constexpr bool kTiles = false;
    static Reg splat_unit(const Unit* a) { return (Reg)splat(load_as<int32_t>(a)); }
    static Vec multiply_add(Vec sum, Reg a, Reg b) {
#if defined(__AVX512BF16__)
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
        sum = sum + (Vec)(a << 16) * (Vec)(b << 16);
        return sum + (Vec)(a & 0xffff0000u) * (Vec)(b & 0xffff0000u);
#endif
    }
};

// Pairs of bf16 for tile registers, whose products are so much faster than all others that wider numbers are written as
// sums of bf16 too: fp16 as two (its 11 bits fit), fp32 as three (24 bits). Infinities have no such sum and become NaN.
// A pair of parts are those of elements i and i + kLanes, so that vectors of them are made without shuffles.
template <int kNumbers>
struct TileUnit {
    using Unit = uint32_t;
    static constexpr int64_t kDepth = 2;
    static constexpr int64_t kDepthStep = 16;
    static constexpr int kParts = kNumbers;
    static constexpr bool kTiles = true;
};

#if VLMK_BF16_TILES
template <class T>
struct UnitOf {
    using type = TileUnit<sizeof(T) == sizeof(float) ? 3 : 2>;
};
template <>
struct UnitOf<bf16> {
    using type = TileUnit<1>;
};
#else
template <class T>
struct UnitOf {
    using type = F32Unit;
};
#if VLMK_BF16_DOT
template <>
struct UnitOf<bf16> {
    using type = Bf16Unit;
};
#endif
#endif

// How `columns` columns are cut into panels of at most kPanelVectors vectors, as even as possible (a narrow last panel
// would waste the register tile).
struct Panels {
    int64_t columns, vectors, count, base, wider;

    explicit Panels(int64_t n)
        : columns(n),
          vectors((n + kLanes - 1) / kLanes),
          count((vectors + kPanelVectors - 1) / kPanelVectors),
          base(count > 0 ? vectors / count : 0),
          wider(count > 0 ? vectors % count : 0) {}

    int64_t first_vector(int64_t panel) const { return panel * base + (panel < wider ? panel : wider); }
    int64_t width(int64_t panel) const { return base + (panel < wider ? 1 : 0); }
    int64_t padded_columns() const { return vectors * kLanes; }
};

// Units of so many elements.
template <class U>
inline int64_t units(int64_t elements) {
    constexpr int64_t step = U::kDepth * U::kDepthStep;
    return (elements + step - 1) / step * U::kDepthStep * U::kParts;
}

// The first element of unit i, how far the second is from it, and where a part of the unit is: parts follow each other
// after kDepthStep units.
template <class U>
inline int64_t first_element(int64_t i) {
    if constexpr (U::kParts == 1) return U::kDepth * i;
    return i / U::kDepthStep * (U::kDepth * U::kDepthStep) + i % U::kDepthStep;
}
template <class U>
constexpr int64_t kPairDistance = U::kParts == 1 ? 1 : U::kDepthStep;
template <class U>
inline int64_t unit_index(int64_t i, int part) {
    if constexpr (U::kParts == 1) return i;
    return (i / U::kDepthStep * U::kParts + part) * U::kDepthStep + i % U::kDepthStep;
}

// B (depth x columns) packed. `depth` is in units.
template <class U>
struct PackedB {
    Panels panels;
    int64_t depth;
    const typename U::Unit* data;

    const typename U::Unit* panel(int64_t p) const { return data + panels.first_vector(p) * kLanes * depth; }
};

template <class U>
inline int64_t packed_size(int64_t elements, int64_t columns) {
    return units<U>(elements) * Panels(columns).padded_columns();
}

// Distance between rows of a matrix that is also read down its columns: an odd number of cache lines, so that the rows
// of a column spread over all sets of the caches.
inline int64_t spread_stride(int64_t columns) {
    constexpr int64_t kLine = 16;
    return ((columns + kLine - 1) / kLine | 1) * kLine;
}

namespace detail {

// C (rows x vectors * kLanes) = A B over `depth` units, or += : the register tile, compiled for every height and width.
template <class U>
using RegisterTile = void (*)(int64_t depth, const typename U::Unit* a, int64_t a_row, int64_t a_unit,
                              const typename U::Unit* b, float* c, int64_t c_row, bool accumulate);

template <class U>
RegisterTile<U> tile_of(int64_t rows, int64_t vectors);

}  // namespace detail

// While one exists, this thread may call product(). Tile registers have a shape that code of other libraries changes,
// so every task makes its own scope; without tiles it is nothing.
class ProductScope {
  public:
    ProductScope(const ProductScope&) = delete;
    ProductScope& operator=(const ProductScope&) = delete;
#if VLMK_BF16_TILES
    VLMK_INLINE ProductScope() { shape_tiles(); }
    VLMK_INLINE ~ProductScope() { release_tiles(); }
#else
    VLMK_INLINE ProductScope() {}
    VLMK_INLINE ~ProductScope() {}
#endif
};

#if VLMK_BF16_TILES
// product() on tile registers; units of A are contiguous.
template <int kParts>
void tile_product(bool accumulate, int64_t rows, const uint32_t* a, int64_t a_row, const PackedB<TileUnit<kParts>>& b,
                  float* c, int64_t c_row);
#endif

// Longest chain of additions in one register, in units: rounding errors grow with its length, and reading C this seldom
// costs nothing.
constexpr int64_t kChain = 128;

// The left-hand side: A(r, k) = data[r * row + k * unit], k < the depth of B.
template <class U>
struct LeftSide {
    const typename U::Unit* data;
    int64_t row, unit;
};

// C (rows x b.panels.columns) = A B, or += with `accumulate`. Rows of C need room for padded_columns() floats; the
// padding receives zeros (or what it held plus zeros).
template <class U>
void product(bool accumulate, int64_t rows, const LeftSide<U>& left, const PackedB<U>& b, float* c, int64_t c_row) {
    if constexpr (U::kTiles) {
#if VLMK_BF16_TILES
        tile_product<U::kParts>(accumulate, rows, left.data, left.row, b, c, c_row);
#endif
    } else {
        const typename U::Unit* a = left.data;
        const int64_t a_row = left.row, a_unit = left.unit, depth = b.depth;
        const int64_t tiles = (rows + kRows - 1) / kRows;
        for (int64_t p = 0; p < b.panels.count; ++p) {
            const int64_t width = b.panels.width(p), panel_row = width * kLanes;
            float* c_panel = c + b.panels.first_vector(p) * kLanes;
            // A stretch of the panel stays in the first-level cache while all rows pass.
            for (int64_t k = 0; k < depth || k == 0; k += kChain) {
                const int64_t length = depth - k < kChain ? depth - k : kChain;
                for (int64_t t = 0, row = 0; t < tiles; ++t) {
                    const int64_t height = rows / tiles + (t < rows % tiles ? 1 : 0);
                    detail::tile_of<U>(height, width)(length, a + row * a_row + k * a_unit, a_row, a_unit,
                                                      b.panel(p) + k * panel_row, c_panel + row * c_row, c_row,
                                                      accumulate || k > 0);
                    row += height;
                }
            }
        }
    }
}

}  // namespace vlmk::VLMK_ISA
