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

}  // namespace vlmk::gpu
