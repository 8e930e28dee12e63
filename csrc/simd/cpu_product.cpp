// The register tiles of the product, once for all kernels of an instruction set.
#include "simd/product.h"

namespace vlmk::VLMK_ISA {
namespace detail {

template <class U, int Rows, int Vectors>
static void register_tile(int64_t depth, const typename U::Unit* a, int64_t a_row, int64_t a_unit,
                          const typename U::Unit* b, float* c, int64_t c_row, bool accumulate) {
    Vec sum[Rows][Vectors];
    // Every loop over the tile is unrolled from the start, or the compiler keeps the accumulators in memory around the
    // main loop.
    VLMK_UNROLL for (int r = 0; r < Rows; ++r) VLMK_UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] = Vec{};
    // Four units a turn: counting and branching take slots that multiplications could have.
    _Pragma("GCC unroll 4") for (int64_t k = 0; k < depth; ++k, a += a_unit, b += Vectors * kLanes) {
        typename U::Reg right[Vectors];
        VLMK_UNROLL for (int v = 0; v < Vectors; ++v) right[v] = load_as<typename U::Reg>(b + v * kLanes);
        VLMK_UNROLL for (int r = 0; r < Rows; ++r) {
            const typename U::Reg left = U::splat_unit(a + r * a_row);
            VLMK_UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] = U::multiply_add(sum[r][v], left, right[v]);
        }
    }
    if (accumulate)
        VLMK_UNROLL for (int r = 0; r < Rows; ++r) VLMK_UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] =
            load(c + r * c_row + v * kLanes) + sum[r][v];
    VLMK_UNROLL for (int r = 0; r < Rows; ++r) VLMK_UNROLL for (int v = 0; v < Vectors; ++v)
        store(c + r * c_row + v * kLanes, sum[r][v]);
}

template <class U, int Vectors>
static RegisterTile<U> tile_of_rows(int64_t rows) {
    constexpr RegisterTile<U> table[kRows] = {register_tile<U, 1, Vectors>, register_tile<U, 2, Vectors>,
                                              register_tile<U, 3, Vectors>, register_tile<U, 4, Vectors>,
                                              register_tile<U, 5, Vectors>, register_tile<U, 6, Vectors>};
    return table[rows - 1];
}

template <class U>
RegisterTile<U> tile_of(int64_t rows, int64_t vectors) {
    if constexpr (kPanelVectors == 4) {
        if (vectors == 4) return tile_of_rows<U, 4>(rows);
        if (vectors == 3) return tile_of_rows<U, 3>(rows);
    }
    return vectors == 2 ? tile_of_rows<U, 2>(rows) : tile_of_rows<U, 1>(rows);
}

template RegisterTile<F32Unit> tile_of<F32Unit>(int64_t, int64_t);
#if VLMK_BF16_DOT
template RegisterTile<Bf16Unit> tile_of<Bf16Unit>(int64_t, int64_t);
#endif

}  // namespace detail

}  // namespace vlmk::VLMK_ISA
