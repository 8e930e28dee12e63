// Tile registers (Intel AMX): eight matrices of 16 rows by 64 bytes, and the product of two of them added to a third.
// Registers are named by constants. Builds that emulate instruction sets do the same in memory.
#pragma once
#include "core/inline.h"
#include "simd/vec.h"

#if VLMK_BF16_TILES
namespace vlmk::VLMK_ISA {

constexpr int kTileRows = 16;   // rows of a tile; numbers of fp32, or pairs of bf16, in each
constexpr int kTileBytes = 64;  // bytes of a row

#if defined(VLMK_EMULATE_AVX512)
namespace detail {

typedef uint32_t EmulatedTile[kTileRows][kTileRows];
struct EmulatedTiles {
    bool shaped;
    EmulatedTile tile[8];
};
inline thread_local EmulatedTiles emulated_tiles{};
VLMK_INLINE EmulatedTile& emulated_tile(int index) {
    if (!emulated_tiles.shaped) __builtin_trap();  // what the processor does
    return emulated_tiles.tile[index];
}

}  // namespace detail

VLMK_INLINE void shape_tiles() { detail::emulated_tiles.shaped = true; }
VLMK_INLINE void release_tiles() { detail::emulated_tiles.shaped = false; }

template <int kTile>
VLMK_INLINE void zero_tile() {
    std::memset(detail::emulated_tile(kTile), 0, sizeof(detail::EmulatedTile));
}
template <int kTile>
VLMK_INLINE void load_tile(const void* from, int64_t stride) {
    for (int row = 0; row < kTileRows; ++row)
        std::memcpy(detail::emulated_tile(kTile)[row], static_cast<const char*>(from) + row * stride, kTileBytes);
}
template <int kTile>
VLMK_INLINE void store_tile(void* to, int64_t stride) {
    for (int row = 0; row < kTileRows; ++row)
        std::memcpy(static_cast<char*>(to) + row * stride, detail::emulated_tile(kTile)[row], kTileBytes);
}
template <int kSum, int kA, int kB>
inline void multiply_tiles() {
    const detail::EmulatedTile &a = detail::emulated_tile(kA), &b = detail::emulated_tile(kB);
    for (int m = 0; m < kTileRows; ++m) {
        uint32_t* row = detail::emulated_tile(kSum)[m];
        Vec sum = load_as<Vec>(row);
        for (int k = 0; k < kTileRows; ++k) {
            const UintVec left = UintVec{} + a[m][k], right = load_as<UintVec>(b[k]);
            sum = sum + (Vec)(left << 16) * (Vec)(right << 16);
            sum = sum + (Vec)(left & 0xffff0000u) * (Vec)(right & 0xffff0000u);
        }
        store_as(row, sum);
    }
}
#else
VLMK_INLINE void shape_tiles() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } shape;
    for (int i = 0; i < 8; ++i) shape.row_bytes[i] = kTileBytes, shape.rows[i] = kTileRows;
    asm volatile("ldtilecfg %0" : : "m"(shape));
}
VLMK_INLINE void release_tiles() { asm volatile("tilerelease"); }

template <int kTile>
VLMK_INLINE void zero_tile() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
// 16 rows of 64 bytes, `stride` bytes apart.
template <int kTile>
VLMK_INLINE void load_tile(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
VLMK_INLINE void store_tile(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
// sum[m][n] += <a[m][k], b[k][n]> over 16 pairs k of bf16.
template <int kSum, int kA, int kB>
VLMK_INLINE void multiply_tiles() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}
#endif

}  // namespace vlmk::VLMK_ISA
#endif
