// Powers and logarithms of two by the special function unit. Softmax works in powers of two: exp(x) = 2^(x log2 e).
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

// 2^x, relative error 2^-22; 0 for -inf. Results below 2^-126 are 0: without .ftz the compiler adds three instructions
// that rescue them.
VLMK_DEVICE float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// log2 x, absolute error 2^-22 near 1 and relative elsewhere; -inf for 0.
VLMK_DEVICE float log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x, relative error 2^-23.
VLMK_DEVICE float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// log(1 + x) for x in [0, 1], relative error 2^-22 down to the smallest x: x times a polynomial.
VLMK_DEVICE float log1p_up_to_1(float x) {
    float p = -0.0032440091f;
    p = p * x + 0.0198513903f;
    p = p * x - 0.0569593981f;
    p = p * x + 0.10603641f;
    p = p * x - 0.153055847f;
    p = p * x + 0.196759358f;
    p = p * x - 0.249541327f;
    p = p * x + 0.333299637f;
    p = p * x - 0.499999017f;
    p = p * x + 1.0f;
    return p * x;
}

}  // namespace vlmk::gpu
