// Vectors of floats from and to tensors of any element type. Conversions round to nearest even.
#pragma once
#include "core/half.h"
#include "simd/vec.h"

namespace vlmk::VLMK_ISA {

inline Vec load(const float* from) { return load_as<Vec>(from); }
inline Vec load(const bf16* from) { return (Vec)(__builtin_convertvector(load_as<HalfBits>(from), UintVec) << 16); }
inline Vec load(const uint8_t* from) {
    return __builtin_convertvector(__builtin_convertvector(load_as<ByteVec>(from), IntVec), Vec);
}
inline Vec load(const f16* from) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
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

// The first `count` lanes; the others read as zero and are not written.
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

// to[i] = from[i] * factor for `count` numbers.
template <class To, class From>
inline void convert_row(To* to, const From* from, int64_t count, float factor = 1.0f) {
    const Vec f = splat(factor);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i) * f);
    if (i < count) store_partial(to + i, load_partial(from + i, count - i) * f, count - i);
}

}  // namespace vlmk::VLMK_ISA
