// Rounding to any floating format, in any direction, from values that are exact: the slow and certain way.
#pragma once
#include <cstdint>

#include "emulator/handlers.h"

namespace vlmk::emulator {

// sign * mantissa * 2^exponent, plus something smaller in magnitude than one unit of the mantissa when `sticky`.
struct Exact {
    enum class Kind : uint8_t { finite, infinite, nan } kind = Kind::finite;
    bool negative = false;
    bool sticky = false;
    uint64_t mantissa = 0;
    int32_t exponent = 0;
};

Exact exact(double value);
Exact exact_integer(uint64_t bits, bool is_signed);

// The bits of the nearest value of a floating type. `finite_saturation` gives the largest finite value for everything
// beyond it (NaN stays NaN), as .satfinite does.
uint64_t to_float_bits(const Exact& value, Type type, Rounding rounding, bool finite_saturation);
// An integer, saturated to the type's range; NaN gives what GPUs give: 0, or the highest bit alone for 64 bits.
uint64_t to_integer_bits(const Exact& value, Type type, Rounding rounding);
// The value of the bits of a floating type; exact for all of them.
double from_float_bits(uint64_t bits, Type type);

// a * b + c with one bit of stickiness: rounding the result once more to at most 50 bits is rounding the exact value.
double fused_to_odd(double a, double b, double c);

}  // namespace vlmk::emulator
