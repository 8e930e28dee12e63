// Conversions between fp32 and the 16-bit types, single and in packed pairs, rounding to nearest even.
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

template <class T>
VLMK_DEVICE T from_float(float value);
template <>
VLMK_DEVICE float from_float<float>(float value) {
    return value;
}
template <>
VLMK_DEVICE bf16 from_float<bf16>(float value) {
    bf16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
    return rounded;
}
template <>
VLMK_DEVICE f16 from_float<f16>(float value) {
    f16 rounded;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
    return rounded;
}

VLMK_DEVICE float to_float(float value) { return value; }
VLMK_DEVICE float to_float(bf16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
VLMK_DEVICE float to_float(f16 value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
}

// Byte `index` of a word, by its place among the last digits of 2^23: one instruction puts it there, another takes 2^23
// off again.
template <int kIndex>
VLMK_DEVICE float byte_to_float(uint32_t word) {
    float shifted;
    asm("{.reg .b32 t; prmt.b32 t, %1, 0x4b000000, %2; mov.b32 %0, t;}"
        : "=f"(shifted)
        : "r"(word), "n"(0x7440 | kIndex));
    return shifted - 8388608.0f;
}
VLMK_DEVICE float byte_to_float(uint32_t word, int index) {
    switch (index) {
        case 0:
            return byte_to_float<0>(word);
        case 1:
            return byte_to_float<1>(word);
        case 2:
            return byte_to_float<2>(word);
        default:
            return byte_to_float<3>(word);
    }
}

// Two numbers in one register, the first in the low half, as fragments and memory have them.
template <class T>
VLMK_DEVICE uint32_t pack(float low, float high);
template <>
VLMK_DEVICE uint32_t pack<bf16>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <>
VLMK_DEVICE uint32_t pack<f16>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <class T>
VLMK_DEVICE void unpack(uint32_t pair, float& low, float& high);
template <>
VLMK_DEVICE void unpack<bf16>(uint32_t pair, float& low, float& high) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}
template <>
VLMK_DEVICE void unpack<f16>(uint32_t pair, float& low, float& high) {
    low = to_float(f16{static_cast<uint16_t>(pair)});
    high = to_float(f16{static_cast<uint16_t>(pair >> 16)});
}

// fp32 with the mantissa rounded to the 10 bits that tensor cores read (they would cut it off).
VLMK_DEVICE uint32_t to_tf32(float value) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
    return rounded;
}

}  // namespace vlmk::gpu
