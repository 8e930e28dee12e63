// 2^x for a whole warp at once. Included only by sources compiled per instruction set.
#pragma once
#include "core/half.h"
#include "emulator/handlers.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {

// Relative error about 1e-7; ex2.approx allows 2^-22. Infinite, NaN and subnormal results come out as they should.
struct Exp2 {
    float operator()(float x) const {
        const float limited = x < -160.0F ? -160.0F : (x > 136.0F ? 136.0F : x);  // NaN passes
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
        const float shifted = limited + 12582912.0F;
        const float integer = shifted - 12582912.0F;
        const auto n = static_cast<int32_t>(float_to_bits(shifted) - 0x4b400000U);
        const float f = limited - integer;
        float p = 1.5252734e-5F;  // the Taylor series of 2^f, |f| <= 0.5
        p = p * f + 1.5403530e-4F;
        p = p * f + 1.3333558e-3F;
        p = p * f + 9.6181291e-3F;
        p = p * f + 5.5504109e-2F;
        p = p * f + 2.4022651e-1F;
        p = p * f + 6.9314718e-1F;
        p = p * f + 1.0F;
        // Two factors, so that neither leaves the exponents of a normal number.
        const int32_t half = n >> 1;
        const float low = bits_to_float(static_cast<uint32_t>(half + 127) << 23);
        const float high = bits_to_float(static_cast<uint32_t>(n - half + 127) << 23);
        return x != x ? x : p * low * high;
    }
};

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
