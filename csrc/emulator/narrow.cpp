#include "emulator/narrow.h"

#include <cmath>
#include <cstring>

namespace vlmk::emulator {
namespace {

struct Format {
    int32_t mantissa_bits;  // without the hidden one
    int32_t exponent_bits;
    int32_t bias;
    bool infinity;          // e4m3 has none: its largest exponent holds numbers too
    uint64_t largest, nan;  // without sign
};
Format format(Type type) {
    switch (type) {
        case Type::f16:
            return {10, 5, 15, true, 0x7bff, 0x7fff};
        case Type::bf16:
            return {7, 8, 127, true, 0x7f7f, 0x7fff};
        case Type::tf32:  // a float whose low 13 bits are zero
        case Type::f32:
            return {23, 8, 127, true, 0x7f7fffff, 0x7fffffff};
        case Type::f64:
            return {52, 11, 1023, true, 0x7fefffffffffffff, 0x7ff8000000000000};
        case Type::e5m2:
            return {2, 5, 15, true, 0x7b, 0x7f};
        default:
            return {3, 4, 7, false, 0x7e, 0x7f};
    }
}

// value / 2^shift, rounded. With a mode that looks at the sign, `negative` tells it.
uint64_t shifted(uint64_t value, int32_t shift, bool sticky, Rounding rounding, bool negative) {
    if (shift <= 0) return value << -shift;
    uint64_t kept = shift >= 64 ? 0 : value >> shift;
    const uint64_t rest = shift >= 64 ? value : value & ((uint64_t{1} << shift) - 1);
    const bool inexact = rest != 0 || sticky;
    bool half = false, more = false;  // rest >= half, rest > half
    if (shift <= 64) {
        const uint64_t middle = uint64_t{1} << (shift - 1);
        half = rest >= middle;
        more = rest > middle || (rest == middle && sticky);
    }
    switch (rounding) {
        case Rounding::rz:
            break;
        case Rounding::rm:
            kept += negative && inexact ? 1 : 0;
            break;
        case Rounding::rp:
            kept += !negative && inexact ? 1 : 0;
            break;
        case Rounding::rna:
            kept += half ? 1 : 0;
            break;
        default:
            kept += more || (half && (kept & 1) != 0) ? 1 : 0;
            break;
    }
    return kept;
}

}  // namespace

Exact exact(double value) {
    Exact result;
    result.negative = std::signbit(value);
    if (std::isnan(value)) {
        result.kind = Exact::Kind::nan;
    } else if (std::isinf(value)) {
        result.kind = Exact::Kind::infinite;
    } else {
        uint64_t bits;
        std::memcpy(&bits, &value, 8);
        const auto exponent = static_cast<int32_t>(bits >> 52 & 0x7ff);
        result.mantissa = bits & ((uint64_t{1} << 52) - 1);
        if (exponent != 0) result.mantissa |= uint64_t{1} << 52;
        result.exponent = (exponent == 0 ? 1 : exponent) - 1075;
    }
    return result;
}
Exact exact_integer(uint64_t bits, bool is_signed) {
    Exact result;
    result.negative = is_signed && bits >> 63 != 0;
    result.mantissa = result.negative ? uint64_t{0} - bits : bits;
    return result;
}

uint64_t to_float_bits(const Exact& value, Type type, Rounding rounding, bool finite_saturation) {
    const Format f = format(type);
    const int32_t mantissa_bits = type == Type::tf32 ? 10 : f.mantissa_bits;
    const uint64_t sign = static_cast<uint64_t>(value.negative) << (f.mantissa_bits + f.exponent_bits);
    if (value.kind == Exact::Kind::nan) return f.nan;
    const uint64_t infinity = f.infinity ? ((uint64_t{1} << f.exponent_bits) - 1) << f.mantissa_bits : f.nan;
    if (value.kind == Exact::Kind::infinite) return sign | (finite_saturation ? f.largest : infinity);
    if (value.mantissa == 0 && !value.sticky) return sign;
    const int32_t top = value.mantissa == 0 ? -1 : 63 - __builtin_clzll(value.mantissa);
    // The last bit kept: of a normal number by its exponent, of a subnormal fixed.
    const int32_t lowest = 1 - f.bias - mantissa_bits;
    const int32_t last = top + value.exponent - mantissa_bits > lowest ? top + value.exponent - mantissa_bits : lowest;
    uint64_t kept = shifted(value.mantissa, last - value.exponent, value.sticky, rounding, value.negative);
    int32_t exponent = last;
    if (kept >> (mantissa_bits + 1) != 0) {
        kept >>= 1;
        ++exponent;
    }
    const bool normal = kept >> mantissa_bits != 0;
    const int64_t biased = normal ? exponent - lowest + 1 : 0;
    const uint64_t bits =
        ((static_cast<uint64_t>(biased) << mantissa_bits) | (kept & ((uint64_t{1} << mantissa_bits) - 1)))
        << (f.mantissa_bits - mantissa_bits);
    if (biased >= (int64_t{1} << f.exponent_bits) || bits > f.largest) {
        const bool towards_zero = rounding == Rounding::rz || (rounding == Rounding::rm && !value.negative) ||
                                  (rounding == Rounding::rp && value.negative);
        return sign | (finite_saturation || towards_zero ? f.largest : infinity);
    }
    return sign | bits;
}

uint64_t to_integer_bits(const Exact& value, Type type, Rounding rounding) {
    const uint32_t width = 8 * size_of(type);
    const bool is_signed_type = is_signed(type);
    const uint64_t mask = width == 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1;
    if (value.kind == Exact::Kind::nan) return width == 64 ? uint64_t{1} << 63 : 0;
    const uint64_t high = is_signed_type ? mask >> 1 : mask;
    const uint64_t low_magnitude = is_signed_type ? (mask >> 1) + 1 : 0;
    uint64_t magnitude = ~uint64_t{0};
    if (value.kind == Exact::Kind::finite) {
        const int32_t top = value.mantissa == 0 ? 0 : 64 - __builtin_clzll(value.mantissa);
        if (top + value.exponent <= 64)
            magnitude = shifted(value.mantissa, -value.exponent, value.sticky, rounding, value.negative);
    }
    const uint64_t limit = value.negative ? low_magnitude : high;
    if (magnitude > limit) magnitude = limit;
    return (value.negative ? uint64_t{0} - magnitude : magnitude) & mask;
}

double from_float_bits(uint64_t bits, Type type) {
    const Format f = format(type);
    const uint64_t magnitude = bits & ((uint64_t{1} << (f.mantissa_bits + f.exponent_bits)) - 1);
    const bool negative = (bits >> (f.mantissa_bits + f.exponent_bits) & 1) != 0;
    const uint64_t top_exponent = (uint64_t{1} << f.exponent_bits) - 1;
    const uint64_t exponent = magnitude >> f.mantissa_bits;
    const uint64_t mantissa = magnitude & ((uint64_t{1} << f.mantissa_bits) - 1);
    double result;
    if (f.infinity ? exponent == top_exponent : magnitude == f.nan) {
        if (!f.infinity || mantissa != 0) return std::nan("");
        result = HUGE_VAL;
    } else if (exponent == 0) {
        result = std::ldexp(static_cast<double>(mantissa), 1 - f.bias - f.mantissa_bits);
    } else {
        result = std::ldexp(static_cast<double>(mantissa | uint64_t{1} << f.mantissa_bits),
                            static_cast<int>(exponent) - f.bias - f.mantissa_bits);
    }
    return negative ? -result : result;
}

double fused_to_odd(double a, double b, double c) {
    const double product = a * b;  // exact for factors of at most 26 bits
    const double sum = product + c;
    if (!std::isfinite(sum)) return sum;
    const double c_part = sum - product;
    const double error = (product - (sum - c_part)) + (c - c_part);
    if (error == 0) return sum;
    uint64_t bits;
    std::memcpy(&bits, &sum, 8);
    if ((bits & 1) == 0) {  // the odd neighbour on the side of the exact value
        bits = (error > 0) == (sum > 0) ? bits + 1 : bits - 1;
        double odd;
        std::memcpy(&odd, &bits, 8);
        return odd;
    }
    return sum;
}

}  // namespace vlmk::emulator
