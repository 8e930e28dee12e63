// Vectors of floats from and to tensors of any element type. Conversions round to nearest even.
#pragma once
#include "core/half.h"
#include "simd/vec.h"

namespace vlmk::VLMK_ISA {

inline Vec load(const float* from) { return load_as<Vec>(from); }
// Small unsigned numbers as 32-bit ones; compilers do this in pieces.
inline UintVec widen(HalfBits v) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (UintVec)_mm512_cvtepu16_epi32((__m256i)v);
#elif VLMK_LANES == 8 && defined(__AVX2__)
    return (UintVec)_mm256_cvtepu16_epi32((__m128i)v);
#else
    return __builtin_convertvector(v, UintVec);
#endif
}
inline UintVec widen(ByteVec v) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (UintVec)_mm512_cvtepu8_epi32((__m128i)v);
#elif VLMK_LANES == 8 && defined(__AVX2__)
    return (UintVec)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load_as<long long>(&v)));
#else
    return __builtin_convertvector(__builtin_convertvector(v, HalfBits), UintVec);
#endif
}

inline Vec from_bf16_bits(HalfBits bits) { return (Vec)(widen(bits) << 16); }
inline Vec from_bytes(ByteVec bytes) { return __builtin_convertvector((IntVec)widen(bytes), Vec); }
inline Vec load(const bf16* from) { return from_bf16_bits(load_as<HalfBits>(from)); }
inline Vec load(const uint8_t* from) { return from_bytes(load_as<ByteVec>(from)); }
inline Vec load(const f16* from) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps(load_as<__m256i>(from));
#elif VLMK_LANES == 8 && defined(__F16C__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = to_float(from[i]);
    return load(lanes);
#endif
}

inline void store(float* to, Vec v) { store_as(to, v); }
inline HalfBits to_bf16_bits(Vec v) {
#if VLMK_LANES == 16 && defined(__AVX512BF16__)
    // Subnormal numbers become zero, as in the products of such numbers.
    return (HalfBits)_mm512_cvtneps_pbh((__m512)v);
#else
    const UintVec bits = (UintVec)v;
    const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const UintVec quiet = (bits >> 16) | 0x40u;
    const UintVec nan = (UintVec)((bits & 0x7fffffffu) > 0x7f800000u);
    return __builtin_convertvector((nan & quiet) | (~nan & rounded), HalfBits);
#endif
}
inline void store(bf16* to, Vec v) { store_as(to, to_bf16_bits(v)); }
inline void store(f16* to, Vec v) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif VLMK_LANES == 8 && defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
    float lanes[kLanes];
    store(lanes, v);
    for (int i = 0; i < kLanes; ++i) from_float(lanes[i], to[i]);
#endif
}

// The first `count` lanes; the others read as zero and are not touched in memory.
#if VLMK_LANES == 16 && defined(__AVX512BW__)
inline __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

inline Vec load_partial(const float* from, int64_t count) {
    return count >= kLanes ? load(from) : (Vec)_mm512_maskz_loadu_ps(first_lanes(count), from);
}
inline Vec load_partial(const uint8_t* from, int64_t count) {
    return count >= kLanes ? load(from) : from_bytes((ByteVec)_mm_maskz_loadu_epi8(first_lanes(count), from));
}
inline Vec load_partial(const bf16* from, int64_t count) {
    return count >= kLanes ? load(from) : from_bf16_bits((HalfBits)_mm256_maskz_loadu_epi16(first_lanes(count), from));
}
inline Vec load_partial(const f16* from, int64_t count) {
    return count >= kLanes ? load(from) : (Vec)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), from));
}
inline void store_partial(float* to, Vec v, int64_t count) {
    if (count >= kLanes) return store(to, v);
    _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)v);
}
template <class T>
inline void store_partial(T* to, Vec v, int64_t count) {
    if (count >= kLanes) return store(to, v);
    T lanes[kLanes];
    store(lanes, v);
    _mm256_mask_storeu_epi16(to, first_lanes(count), load_as<__m256i>(lanes));
}
#else
template <class T>
inline Vec load_partial(const T* from, int64_t count) {
    if (count >= kLanes) return load(from);
    T lanes[kLanes] = {};
    std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(T));
    return load(lanes);
}
template <class T>
inline void store_partial(T* to, Vec v, int64_t count) {
    if (count >= kLanes) return store(to, v);
    T lanes[kLanes];
    store(lanes, v);
    std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof(T));
}
#endif

// to[i] = from[i] * factor for `count` numbers.
template <class To, class From>
inline void convert_row(To* to, const From* from, int64_t count, float factor = 1.0f) {
    const Vec f = splat(factor);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i) * f);
    if (i < count) store_partial(to + i, load_partial(from + i, count - i) * f, count - i);
}

}  // namespace vlmk::VLMK_ISA
