// Scalar conversions between float and the 16-bit types, round to nearest even, NaN stays NaN. Used where no
// instruction does it, and for single values.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "core/inline.h"

namespace vlmk {

VLMK_INLINE float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
VLMK_INLINE uint32_t float_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

VLMK_INLINE float to_float(float value) { return value; }
VLMK_INLINE float to_float(uint8_t value) { return static_cast<float>(value); }
VLMK_INLINE float to_float(bf16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }
VLMK_INLINE float to_float(f16 value) {
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
    const uint32_t magnitude = value.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    // Multiplying by 2^112 moves the exponent bias and turns subnormal halves into normal floats exactly.
    return bits_to_float(sign | float_to_bits(bits_to_float(magnitude << 13) * 0x1p112f));
}

VLMK_INLINE void from_float(float value, float& out) { out = value; }
VLMK_INLINE void from_float(float value, bf16& out) {
    const uint32_t bits = float_to_bits(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out.bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
VLMK_INLINE void from_float(float value, f16& out) {
    const uint32_t bits = float_to_bits(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
        half = 0x7c00u;
    } else if (magnitude <
               0x38800000u) {  // subnormal half: adding 0.5 puts the result's last bit at 2^-24 and rounds it there
        half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    out.bits = static_cast<uint16_t>(sign | half);
}

}  // namespace vlmk
