// Square blocks of 4-byte lanes turned around in registers.
#pragma once
#include "simd/vec.h"

namespace vlmk::VLMK_ISA {

// rows[i][j] <-> rows[j][i].
inline void transpose(Vec rows[kLanes]) {
#if (VLMK_LANES == 16 && defined(__AVX512F__)) || (VLMK_LANES == 8 && defined(__AVX__))
    // Inside every 128-bit quarter (half): group g of four rows becomes its columns 0 to 3, in quads[4 * g + column].
    Vec pairs[kLanes], quads[kLanes];
#if VLMK_LANES == 16
#define VLMK_PS(operation, a, b) ((Vec)_mm512_##operation##_ps((__m512)(a), (__m512)(b)))
#define VLMK_PD(operation, a, b) ((Vec)_mm512_##operation##_pd((__m512d)(a), (__m512d)(b)))
#else
#define VLMK_PS(operation, a, b) ((Vec)_mm256_##operation##_ps((__m256)(a), (__m256)(b)))
#define VLMK_PD(operation, a, b) ((Vec)_mm256_##operation##_pd((__m256d)(a), (__m256d)(b)))
#endif
    for (int i = 0; i < kLanes; i += 2) {
        pairs[i] = VLMK_PS(unpacklo, rows[i], rows[i + 1]);
        pairs[i + 1] = VLMK_PS(unpackhi, rows[i], rows[i + 1]);
    }
    for (int i = 0; i < kLanes; i += 4) {
        quads[i] = VLMK_PD(unpacklo, pairs[i], pairs[i + 2]);
        quads[i + 1] = VLMK_PD(unpackhi, pairs[i], pairs[i + 2]);
        quads[i + 2] = VLMK_PD(unpacklo, pairs[i + 1], pairs[i + 3]);
        quads[i + 3] = VLMK_PD(unpackhi, pairs[i + 1], pairs[i + 3]);
    }
#undef VLMK_PS
#undef VLMK_PD
    // The quarters (halves) of a column side by side.
    for (int c = 0; c < 4; ++c) {
#if VLMK_LANES == 16
        const __m512 a = (__m512)quads[c], b = (__m512)quads[4 + c], d = (__m512)quads[8 + c],
                     e = (__m512)quads[12 + c];
        const __m512 low = _mm512_shuffle_f32x4(a, b, 0x44), high = _mm512_shuffle_f32x4(a, b, 0xee);
        const __m512 next_low = _mm512_shuffle_f32x4(d, e, 0x44), next_high = _mm512_shuffle_f32x4(d, e, 0xee);
        rows[c] = (Vec)_mm512_shuffle_f32x4(low, next_low, 0x88);
        rows[4 + c] = (Vec)_mm512_shuffle_f32x4(low, next_low, 0xdd);
        rows[8 + c] = (Vec)_mm512_shuffle_f32x4(high, next_high, 0x88);
        rows[12 + c] = (Vec)_mm512_shuffle_f32x4(high, next_high, 0xdd);
#else
        const __m256 a = (__m256)quads[c], b = (__m256)quads[4 + c];
        rows[c] = (Vec)_mm256_permute2f128_ps(a, b, 0x20);
        rows[4 + c] = (Vec)_mm256_permute2f128_ps(a, b, 0x31);
#endif
    }
#else
    float lanes[kLanes][kLanes];
    for (int i = 0; i < kLanes; ++i)
        for (int j = 0; j < kLanes; ++j) lanes[j][i] = rows[i][j];
    for (int i = 0; i < kLanes; ++i) rows[i] = load_as<Vec>(lanes[i]);
#endif
}

// Sums over the lanes: lane i of the result is that of vectors[i] (of kLanes, which it may change), always added in the
// same tree order.
inline Vec lane_sums(Vec* vectors) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    const auto sum = [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); };
    __m512 pairs[8], quads[4];
    for (int i = 0; i < 8; ++i) {
        const __m512 a = (__m512)vectors[2 * i], b = (__m512)vectors[2 * i + 1];
        pairs[i] = sum(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; ++i) {
        const __m512d a = (__m512d)pairs[2 * i], b = (__m512d)pairs[2 * i + 1];
        quads[i] = sum((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
    }
    const auto halves = [&](__m512 a, __m512 b) {
        return sum(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    };
    const __m512 low = halves(quads[0], quads[1]), high = halves(quads[2], quads[3]);
    return (Vec)sum(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
#else
    transpose(vectors);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) vectors[i] = vectors[i] + vectors[i + width];
    return vectors[0];
#endif
}

}  // namespace vlmk::VLMK_ISA
