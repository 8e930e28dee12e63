// f16, bf16 and their packed pairs. Sums and products are exact or safely rounded in float; fma goes through double.
#include <cmath>
#include <limits>

#include "emulator/lanes/apply.h"
#include "emulator/lanes/approx.h"
#include "emulator/narrow.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

struct Add {
    float operator()(float a, float b) const { return a + b; }
};
struct Sub {
    float operator()(float a, float b) const { return a - b; }
};
struct Mul {
    float operator()(float a, float b) const { return a * b; }
};
// The sum in double, its bits beyond float folded into the last one: rounding that to 16 bits rounds the exact value.
struct Fma {
    float operator()(float a, float b, float c) const {
        const double sum = fused_to_odd(a, b, c);
        const auto narrow = static_cast<float>(sum);
        if (static_cast<double>(narrow) == sum || !(std::fabs(narrow) < std::numeric_limits<float>::infinity()))
            return narrow;
        uint32_t bits = float_to_bits(narrow);
        if (std::fabs(static_cast<double>(narrow)) > std::fabs(sum)) --bits;
        return bits_to_float(bits | 1);
    }
};
template <bool Maximum, bool Nan, bool XorSign>
struct Extreme {
    float operator()(float a, float b) const {
        const bool sign = std::signbit(a) != std::signbit(b);
        if (XorSign) {
            a = std::fabs(a);
            b = std::fabs(b);
        }
        const bool a_first = Maximum ? a > b || (a == b && !std::signbit(a)) : a < b || (a == b && std::signbit(a));
        float result = b != b || a_first ? a : b;
        if (Nan && (a != a || b != b)) result = std::numeric_limits<float>::quiet_NaN();
        return XorSign ? std::copysign(result, sign ? -1.0F : 1.0F) : result;
    }
};
struct Tanh {
    float operator()(float a) const { return std::tanh(a); }
};
struct Saturate {
    float operator()(float a) const { return a > 0 ? (a < 1 ? a : 1.0F) : 0.0F; }
};
struct Relu {
    float operator()(float a) const { return a != a ? a : a > 0 ? a : 0.0F; }
};

// The halves of a row, 32 or, packed, 64. All are computed, those of active lanes are kept.
struct Halves {
    uint16_t value[2 * kLanes];
    void store(const Warp& w, uint32_t operand, bool packed) const {
        if (packed) {
            uint32_t* d = result_row<uint32_t>(w, operand);
            const auto* pairs = reinterpret_cast<const uint32_t*>(value);
            each_lane(w.active, [=](uint32_t i) { d[i] = pairs[i]; });
        } else {
            uint16_t* d = result_row<uint16_t>(w, operand);
            const uint16_t* from = value;
            each_lane(w.active, [=](uint32_t i) { d[i] = from[i]; });
        }
    }
};
struct Floats {
    float value[2 * kLanes];
};
template <class H>
void widen(const Warp& w, const Op& op, uint32_t operand, Floats& to) {
    const uint16_t* from = row<uint16_t>(w, operand);
    const bool flush = (op.flags & kFlushHalves) != 0;
    const uint32_t count = (op.flags & kPackedHalves) != 0 ? 2 * kLanes : kLanes;
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t bits = flush && (from[i] & 0x7c00) == 0 ? from[i] & 0x8000U : from[i];
        to.value[i] = to_float(H{static_cast<uint16_t>(bits)});
    }
}
template <class H>
void narrow(const Warp& w, const Op& op, const Floats& from) {
    Halves halves;
    const bool flush = (op.flags & kFlushHalves) != 0;
    const uint32_t count = (op.flags & kPackedHalves) != 0 ? 2 * kLanes : kLanes;
    for (uint32_t i = 0; i < count; ++i) {
        H half;
        from_float(from.value[i], half);
        if (from.value[i] != from.value[i]) half.bits = 0x7fff;
        if (flush && (half.bits & 0x7c00) == 0) half.bits &= 0x8000;
        halves.value[i] = half.bits;
    }
    halves.store(w, op.d, count > kLanes);
}

template <class H, class F, int Operands>
void arithmetic(Warp& w, const Op& op) {
    Floats a, b, c, d;
    const uint32_t count = (op.flags & kPackedHalves) != 0 ? 2 * kLanes : kLanes;
    widen<H>(w, op, op.a, a);
    if constexpr (Operands > 1) widen<H>(w, op, op.b, b);
    if constexpr (Operands > 2) widen<H>(w, op, op.c, c);
    for (uint32_t i = 0; i < count; ++i) {
        if constexpr (Operands == 1) d.value[i] = F()(a.value[i]);
        if constexpr (Operands == 2) d.value[i] = F()(a.value[i], b.value[i]);
        if constexpr (Operands == 3) d.value[i] = F()(a.value[i], b.value[i], c.value[i]);
    }
    narrow<H>(w, op, d);
}
template <bool Absolute>
void sign(Warp& w, const Op& op) {
    const uint16_t* a = row<uint16_t>(w, op.a);
    Halves halves;
    const bool packed = (op.flags & kPackedHalves) != 0;
    for (uint32_t i = 0; i < (packed ? 2 * kLanes : kLanes); ++i)
        halves.value[i] = static_cast<uint16_t>(Absolute ? a[i] & 0x7fff : a[i] ^ 0x8000);
    halves.store(w, op.d, packed);
}

template <class F, int Operands>
Handler handler(Type type) {
    const bool brain = type == Type::bf16 || type == Type::bf16x2;
    return brain ? arithmetic<bf16, F, Operands> : arithmetic<f16, F, Operands>;
}

}  // namespace

Handler half(FloatOp op, Type type) {
    switch (op) {
        case FloatOp::add:
            return handler<Add, 2>(type);
        case FloatOp::sub:
            return handler<Sub, 2>(type);
        case FloatOp::mul:
            return handler<Mul, 2>(type);
        case FloatOp::fma:
            return handler<Fma, 3>(type);
        case FloatOp::min:
            return handler<Extreme<false, false, false>, 2>(type);
        case FloatOp::max:
            return handler<Extreme<true, false, false>, 2>(type);
        case FloatOp::min_nan:
            return handler<Extreme<false, true, false>, 2>(type);
        case FloatOp::max_nan:
            return handler<Extreme<true, true, false>, 2>(type);
        case FloatOp::min_xorsign:
            return handler<Extreme<false, false, true>, 2>(type);
        case FloatOp::max_xorsign:
            return handler<Extreme<true, false, true>, 2>(type);
        case FloatOp::min_nan_xorsign:
            return handler<Extreme<false, true, true>, 2>(type);
        case FloatOp::max_nan_xorsign:
            return handler<Extreme<true, true, true>, 2>(type);
        case FloatOp::abs:
            return sign<true>;
        case FloatOp::neg:
            return sign<false>;
        case FloatOp::ex2:
            return handler<Exp2, 1>(type);
        case FloatOp::tanh:
            return handler<Tanh, 1>(type);
        case FloatOp::saturate:
            return handler<Saturate, 1>(type);
        case FloatOp::relu:
            return handler<Relu, 1>(type);
        default:
            return nullptr;
    }
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
