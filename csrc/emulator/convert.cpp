#include "emulator/convert.h"

#include <algorithm>
#include <cmath>

#include "emulator/narrow.h"

namespace vlmk::emulator {
namespace {

ConvertPlan unpack(uint64_t value) {
    ConvertPlan plan;
    plan.to = static_cast<Type>(value & 0xff);
    plan.from = static_cast<Type>(value >> 8 & 0xff);
    plan.rounding = static_cast<Rounding>(value >> 16 & 0xff);
    plan.integral = (value >> 24 & 1) != 0;
    plan.flush = (value >> 25 & 1) != 0;
    plan.saturate = (value >> 26 & 1) != 0;
    plan.finite_saturation = (value >> 27 & 1) != 0;
    plan.from_bytes = static_cast<uint8_t>(value >> 32);
    plan.to_bytes = static_cast<uint8_t>(value >> 40);
    return plan;
}

uint64_t read(const Warp& w, uint32_t operand, uint32_t bytes, uint32_t lane) {
    switch (bytes) {
        case 8:
            return row<uint64_t>(w, operand)[lane];
        case 4:
            return row<uint32_t>(w, operand)[lane];
        default:
            return row<uint16_t>(w, operand)[lane];
    }
}
void write(const Warp& w, uint32_t operand, uint32_t bytes, uint32_t lane, uint64_t value) {
    switch (bytes) {
        case 8:
            result_row<uint64_t>(w, operand)[lane] = value;
            break;
        case 4:
            result_row<uint32_t>(w, operand)[lane] = static_cast<uint32_t>(value);
            break;
        default:
            result_row<uint16_t>(w, operand)[lane] = static_cast<uint16_t>(value);
            break;
    }
}
uint64_t extended(uint64_t bits, Type type) {
    const uint32_t width = 8 * size_of(type);
    if (width == 64) return bits;
    const uint64_t mask = (uint64_t{1} << width) - 1;
    bits &= mask;
    return is_signed(type) && (bits >> (width - 1)) != 0 ? bits | ~mask : bits;
}
bool subnormal32(uint64_t bits) { return (bits & 0x7f800000U) == 0; }

double rounded_integral(double x, Rounding rounding) {
    switch (rounding) {
        case Rounding::rz:
            return std::trunc(x);
        case Rounding::rm:
            return std::floor(x);
        case Rounding::rp:
            return std::ceil(x);
        default:
            return std::nearbyint(x);
    }
}

uint64_t one(const ConvertPlan& plan, uint64_t bits) {
    Exact value;
    if (is_float(plan.from) || plan.from == Type::e4m3 || plan.from == Type::e5m2) {
        if (plan.flush && plan.from == Type::f32 && subnormal32(bits)) bits &= 0x80000000U;
        double x = from_float_bits(bits, plan.from);
        if (plan.integral) x = rounded_integral(x, plan.rounding);
        if (plan.saturate && is_float(plan.to)) x = x > 0 ? std::min(x, 1.0) : 0.0;
        value = exact(x);
    } else {
        bits = extended(bits, plan.from);
        if (!is_float(plan.to)) {
            if (!plan.saturate) return extended(bits, plan.to);
            return extended(to_integer_bits(exact_integer(bits, is_signed(plan.from)), plan.to, Rounding::rz), plan.to);
        }
        value = exact_integer(bits, is_signed(plan.from));
        if (plan.saturate) value = exact(value.negative || value.mantissa == 0 ? 0.0 : 1.0);
    }
    if (!is_float(plan.to) && plan.to != Type::e4m3 && plan.to != Type::e5m2)
        return extended(to_integer_bits(value, plan.to, plan.rounding), plan.to);
    uint64_t result = to_float_bits(value, plan.to, plan.rounding, plan.finite_saturation);
    if (plan.flush && plan.to == Type::f32 && subnormal32(result)) result &= 0x80000000U;
    return result;
}

Type element_of(Type pair) {
    switch (pair) {
        case Type::f16x2:
            return Type::f16;
        case Type::bf16x2:
            return Type::bf16;
        case Type::e4m3x2:
            return Type::e4m3;
        case Type::e5m2x2:
            return Type::e5m2;
        default:
            return pair;
    }
}

}  // namespace

uint64_t pack(const ConvertPlan& plan) {
    return static_cast<uint64_t>(plan.to) | static_cast<uint64_t>(plan.from) << 8 |
           static_cast<uint64_t>(plan.rounding) << 16 | static_cast<uint64_t>(plan.integral) << 24 |
           static_cast<uint64_t>(plan.flush) << 25 | static_cast<uint64_t>(plan.saturate) << 26 |
           static_cast<uint64_t>(plan.finite_saturation) << 27 | static_cast<uint64_t>(plan.from_bytes) << 32 |
           static_cast<uint64_t>(plan.to_bytes) << 40;
}

void convert_scalar(Warp& w, const Op& op) {
    const ConvertPlan plan = unpack(op.value);
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        write(w, op.d, plan.to_bytes, lane, one(plan, read(w, op.a, plan.from_bytes, lane)));
    }
}
void convert_two(Warp& w, const Op& op) {
    ConvertPlan plan = unpack(op.value);
    const uint32_t shift = 8 * size_of(plan.to) / 2;
    plan.to = element_of(plan.to);
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        write(
            w, op.d, plan.to_bytes, lane,
            one(plan, read(w, op.a, plan.from_bytes, lane)) << shift | one(plan, read(w, op.b, plan.from_bytes, lane)));
    }
}
void convert_pair(Warp& w, const Op& op) {
    ConvertPlan plan = unpack(op.value);
    const uint32_t to_shift = 8 * size_of(plan.to) / 2, from_shift = 8 * size_of(plan.from) / 2;
    plan.to = element_of(plan.to);
    plan.from = element_of(plan.from);
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const uint64_t bits = read(w, op.a, plan.from_bytes, lane);
        const uint64_t low = bits & ((uint64_t{1} << from_shift) - 1);
        write(w, op.d, plan.to_bytes, lane, one(plan, bits >> from_shift) << to_shift | one(plan, low));
    }
}
void convert_pack(Warp& w, const Op& op) {
    const ConvertPlan plan = unpack(op.value);
    const uint32_t width = 8 * size_of(plan.to);
    const uint32_t mask = (1U << width) - 1;
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const auto narrow = [&](uint32_t operand) {
            return static_cast<uint32_t>(one(plan, row<uint32_t>(w, operand)[lane])) & mask;
        };
        // What c held before moves up; 16-bit results fill the register by themselves.
        const uint32_t kept = width == 16 ? 0 : row<uint32_t>(w, op.c)[lane] << (2 * width);
        result_row<uint32_t>(w, op.d)[lane] = kept | narrow(op.a) << width | narrow(op.b);
    }
}

}  // namespace vlmk::emulator
