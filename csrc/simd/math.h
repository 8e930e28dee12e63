// Elementary functions on vectors.
#pragma once
#include <limits>

#include "simd/vec.h"

namespace vlmk::VLMK_ISA {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

// 2^x with relative error about one rounding (2^-23); exactly 0 for x < -126 (also -inf), inf for x >= 128, NaN for
// NaN.
inline Vec exp2(Vec x) {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const Vec shifter = splat(12582912.0f);
    const Vec clamped = min(max(splat(-127.0f), x), splat(128.0f));
    const Vec rounded = clamped + shifter;
    const Vec f = clamped - (rounded - shifter);  // in [-0.5, 0.5]
    // Minimax polynomial of 2^f: 2e-9 before rounding.
    Vec p = splat(1.534581199295545e-4f);
    p = p * f + splat(1.339993121870001e-3f);
    p = p * f + splat(9.618488957155072e-3f);
    p = p * f + splat(5.550328776966630e-2f);
    p = p * f + splat(2.402264689063358e-1f);
    p = p * f + splat(6.931472057372670e-1f);
    p = p * f + splat(1.0f);
    const IntVec exponent = ((IntVec)rounded - (IntVec)shifter + 127) << 23;
    const Vec result = p * (Vec)exponent;
    const Vec tiny_is_zero = select((IntVec)(x < splat(-126.0f)), splat(0.0f), result);
    return select((IntVec)(x == x), select((IntVec)(x >= splat(128.0f)), splat(kInfinity), tiny_is_zero), x);
}

namespace detail {

// Minimax polynomials of 2^f that are exactly 1 at 0: 8.2e-8 before rounding for f in [0, 1), 9.2e-8 for [-0.5, 0.5].
inline Vec exp2_above(Vec f) {
    Vec p = splat(1.867130211951263e-3f);
    p = p * f + splat(9.017029962529613e-3f);
    p = p * f + splat(5.579991342522428e-2f);
    p = p * f + splat(2.401644500392730e-1f);
    p = p * f + splat(6.931513118176098e-1f);
    return p * f + splat(1.0f);
}
inline Vec exp2_around(Vec f) {
    Vec p = splat(1.326472719735565e-3f);
    p = p * f + splat(9.671512639651315e-3f);
    p = p * f + splat(5.550733743251582e-2f);
    p = p * f + splat(2.402224208537507e-1f);
    p = p * f + splat(6.931469775991639e-1f);
    return p * f + splat(1.0f);
}

// 2^x, x <= 0, with what `adjust` makes of the fraction of x.
template <class Adjust>
inline Vec exp2_split(Vec x, const Adjust& adjust) {
#if VLMK_LANES == 16 && defined(__AVX512DQ__)
    // The processor splits off the fraction, x - floor(x), and scales by the rest, -inf included.
    constexpr int kDown = 1, kQuiet = 8;
    const Vec f = adjust((Vec)_mm512_reduce_ps((__m512)x, kDown | kQuiet));
    return (Vec)_mm512_scalef_ps((__m512)exp2_above(f), (__m512)x);
#else
    // The low bits of the shifted argument are the biased exponent of the result.
    const Vec shifter = splat(12582912.0f + 127.0f);
    const Vec clamped = max(splat(-127.0f), x);
    const Vec rounded = clamped + shifter;
    const Vec f = adjust(clamped - (rounded - shifter));
    const Vec result = exp2_around(f) * (Vec)((IntVec)rounded << 23);
    return (Vec)(~(IntVec)(x < splat(-126.0f)) & (IntVec)result);
#endif
}

}  // namespace detail

// exp2 for x <= 0, in half the operations: what a softmax needs behind its maximum. Relative error below 2^-22; below
// 2^-126 it may be 0 already; 0 for -inf, NaN for NaN; x may exceed 0 a little.
inline Vec exp2_nonpositive(Vec x) {
    return detail::exp2_split(x, [](Vec f) { return f; });
}
// 2^(x + small) for a small that is at most some roundings of x.
inline Vec exp2_nonpositive(Vec x, Vec small) {
    return detail::exp2_split(x, [&](Vec f) { return f + small; });
}

// exp for x <= 0, with the error of exp2_nonpositive for all of them: what rounding takes from x log2 e is put back.
inline Vec exp_nonpositive(Vec x) {
    x = max(splat(-104.0f), x);  // 0 already, and finite
    const Vec t = x * splat(kLog2E);
    const Vec lost = fused_multiply_add(x, splat(kLog2E), -t) + x * splat(1.925963033500e-8f);
    return exp2_nonpositive(t, lost);
}

inline Vec exp(Vec x) {
    // x = n ln 2 + r with ln 2 in two parts, so that the argument of 2^r keeps its accuracy for large |x|.
    const Vec shifter = splat(12582912.0f);
    const Vec t = min(max(splat(-151.0f), x * splat(kLog2E)), splat(129.0f));
    const Vec n = (t + shifter) - shifter;
    const Vec r = (x - n * splat(0.693359375f)) + n * splat(2.12194440e-4f);
    const Vec inside = exp2(n) * exp2(r * splat(kLog2E));
    const Vec low = select((IntVec)(x < splat(-87.33f)), splat(0.0f), inside);
    return select((IntVec)(x == x), select((IntVec)(x > splat(88.72f)), splat(kInfinity), low), x);
}

// Odd polynomial near 0, 1 - 2 / (e^2x + 1) elsewhere (Cephes' tanhf split).
inline Vec tanh(Vec x) {
    const Vec sign = (Vec)((IntVec)x & (int32_t)0x80000000);
    const Vec a = (Vec)((IntVec)x & 0x7fffffff);
    const Vec s = x * x;
    Vec p = splat(-5.70498872745e-3f);
    p = p * s + splat(2.06390887954e-2f);
    p = p * s + splat(-5.37397155531e-2f);
    p = p * s + splat(1.33314422036e-1f);
    p = p * s + splat(-3.33332819422e-1f);
    const Vec near_zero = x + x * s * p;
    const Vec far = splat(1.0f) - splat(2.0f) / (exp2(min(a, splat(20.0f)) * splat(2.0f * kLog2E)) + splat(1.0f));
    const Vec result = select((IntVec)(a < splat(0.625f)), near_zero, (Vec)((IntVec)far | (IntVec)sign));
    return select((IntVec)(x == x), result, x);
}

// Natural logarithm of positive finite or infinite numbers (0 gives -inf), relative error about 2^-22.
inline Vec log(Vec x) {
    // Subnormal numbers are scaled into the normal range first.
    const IntVec small = (IntVec)(x < splat(1.17549435e-38f));
    const Vec scaled = select(small, x * splat(8388608.0f), x);
    const IntVec bits = (IntVec)scaled;
    // The mantissa is taken in [sqrt(1/2), sqrt(2)).
    const IntVec biased = bits - splat((int32_t)0x3f3504f3);
    const Vec exponent = __builtin_convertvector(biased >> 23, Vec) - select(small, splat(23.0f), splat(0.0f));
    const Vec m = (Vec)((biased & 0x007fffff) + splat((int32_t)0x3f3504f3)) - splat(1.0f);
    Vec p = splat(7.0376836292e-2f);
    p = p * m + splat(-1.1514610310e-1f);
    p = p * m + splat(1.1676998740e-1f);
    p = p * m + splat(-1.2420140846e-1f);
    p = p * m + splat(1.4249322787e-1f);
    p = p * m + splat(-1.6668057665e-1f);
    p = p * m + splat(2.0000714765e-1f);
    p = p * m + splat(-2.4999993993e-1f);
    p = p * m + splat(3.3333331174e-1f);
    const Vec s = m * m;
    Vec result = m * s * p + exponent * splat(-2.12194440e-4f) - splat(0.5f) * s + m + exponent * splat(0.693359375f);
    result = select((IntVec)(x == splat(kInfinity)), splat(kInfinity), result);
    return select((IntVec)(x == splat(0.0f)), splat(-kInfinity), result);
}

// log(1 + x) for x in [0, inf), accurate for small x as well (the correction term of Kahan's formula).
inline Vec log1p(Vec x) {
    const Vec u = splat(1.0f) + x;
    const Vec correction = (x - (u - splat(1.0f))) / u;
    return select((IntVec)(u == splat(kInfinity)), u, log(u) + correction);
}

}  // namespace vlmk::VLMK_ISA
