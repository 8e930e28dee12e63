// The vector vocabulary of the kernels: one register of VLMK_LANES floats, written with the compiler's vector
// extensions so that the same source serves every instruction set (and any compiler target: a vector wider than the
// machine's is split by the compiler). Include only from sources compiled per instruction set.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/dtype.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// In front of a loop over registers.
#define VLMK_UNROLL _Pragma("GCC unroll 16")

namespace vlmk::VLMK_ISA {

constexpr int kLanes = VLMK_LANES;

typedef float Vec __attribute__((vector_size(4 * VLMK_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * VLMK_LANES)));
typedef uint32_t UintVec __attribute__((vector_size(4 * VLMK_LANES)));
typedef uint16_t HalfBits __attribute__((vector_size(2 * VLMK_LANES)));
typedef uint8_t ByteVec __attribute__((vector_size(VLMK_LANES)));

// Reading and writing at any address: the same types without alignment and aliasing assumptions.
template <class V, class P>
inline V load_as(const P* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V, class P>
inline void store_as(P* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

// v - 0 is v for every v (also -0), and compilers turn it into a broadcast.
inline Vec splat(float value) { return value - Vec{}; }
inline IntVec splat(int32_t value) { return value - IntVec{}; }

inline Vec select(IntVec condition, Vec yes, Vec no) {
    return (Vec)((condition & (IntVec)yes) | (~condition & (IntVec)no));
}

// True if the condition holds in some lane.
inline bool any(IntVec condition) {
#if VLMK_LANES == 16 && defined(__AVX512DQ__)
    return _mm512_movepi32_mask((__m512i)condition) != 0;
#elif VLMK_LANES == 8 && defined(__AVX__)
    return _mm256_movemask_ps((__m256)condition) != 0;
#else
    int32_t all = 0;
    for (int i = 0; i < kLanes; ++i) all |= condition[i];
    return all != 0;
#endif
}

// a b + c with one rounding.
inline Vec fused_multiply_add(Vec a, Vec b, Vec c) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VLMK_LANES == 8 && defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    Vec sum;
    for (int i = 0; i < kLanes; ++i) sum[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return sum;
#endif
}

// Largest and smallest; the second argument where either is NaN.
inline Vec max(Vec a, Vec b) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif VLMK_LANES == 8 && defined(__AVX__)
    return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return select((IntVec)(a > b), a, b);
#endif
}
inline Vec min(Vec a, Vec b) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif VLMK_LANES == 8 && defined(__AVX__)
    return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return select((IntVec)(a < b), a, b);
#endif
}

// Sum and maximum over the lanes, always in the same tree order.
inline float reduce_add(Vec v) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lanes[kLanes];
    store_as(lanes, v);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
#endif
}
inline float reduce_max(Vec v) {
#if VLMK_LANES == 16 && defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float lanes[kLanes];
    store_as(lanes, v);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
#endif
}

}  // namespace vlmk::VLMK_ISA
