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

template <class H, bool Flush>
struct Convert {
    static float in(uint16_t bits) {
        if (Flush && (bits & 0x7c00) == 0) bits &= 0x8000;
        return to_float(H{bits});
    }
    static uint16_t out(float value) {
        H half;
        from_float(value, half);
        if (value != value) return 0x7fff;
        if (Flush && (half.bits & 0x7c00) == 0) half.bits &= 0x8000;
        return half.bits;
    }
};
template <class F, class C>
struct OnHalf {
    uint16_t operator()(uint16_t a) const { return C::out(F()(C::in(a))); }
    uint16_t operator()(uint16_t a, uint16_t b) const { return C::out(F()(C::in(a), C::in(b))); }
    uint16_t operator()(uint16_t a, uint16_t b, uint16_t c) const { return C::out(F()(C::in(a), C::in(b), C::in(c))); }
};
struct NegBits {
    uint16_t operator()(uint16_t a) const { return a ^ 0x8000; }
};
struct AbsBits {
    uint16_t operator()(uint16_t a) const { return a & 0x7fff; }
};
template <class F>
struct OnPair {
    template <class... S>
    uint32_t operator()(S... s) const {
        const uint32_t low = F()(static_cast<uint16_t>(s)...), high = F()(static_cast<uint16_t>(s >> 16)...);
        return low | high << 16;
    }
};

template <class F, int Operands>
Handler bits_handler(bool packed) {
    if constexpr (Operands == 1)
        return packed ? unary<OnPair<F>, uint32_t, uint32_t> : unary<F, uint16_t, uint16_t>;
    else if constexpr (Operands == 2)
        return packed ? binary<OnPair<F>, uint32_t, uint32_t, uint32_t> : binary<F, uint16_t, uint16_t, uint16_t>;
    else
        return packed ? ternary<OnPair<F>, uint32_t, uint32_t, uint32_t, uint32_t>
                      : ternary<F, uint16_t, uint16_t, uint16_t, uint16_t>;
}
template <class F, int Operands>
Handler handler(Type type, bool flush) {
    switch (type) {
        case Type::f16:
        case Type::f16x2:
            return flush ? bits_handler<OnHalf<F, Convert<f16, true>>, Operands>(type == Type::f16x2)
                         : bits_handler<OnHalf<F, Convert<f16, false>>, Operands>(type == Type::f16x2);
        case Type::bf16:
        case Type::bf16x2: return bits_handler<OnHalf<F, Convert<bf16, false>>, Operands>(type == Type::bf16x2);
        default: return nullptr;
    }
}

}  // namespace

Handler half(FloatOp op, Type type, bool flush) {
    const bool packed = type == Type::f16x2 || type == Type::bf16x2;
    switch (op) {
        case FloatOp::add: return handler<Add, 2>(type, flush);
        case FloatOp::sub: return handler<Sub, 2>(type, flush);
        case FloatOp::mul: return handler<Mul, 2>(type, flush);
        case FloatOp::fma: return handler<Fma, 3>(type, flush);
        case FloatOp::min: return handler<Extreme<false, false, false>, 2>(type, flush);
        case FloatOp::max: return handler<Extreme<true, false, false>, 2>(type, flush);
        case FloatOp::min_nan: return handler<Extreme<false, true, false>, 2>(type, flush);
        case FloatOp::max_nan: return handler<Extreme<true, true, false>, 2>(type, flush);
        case FloatOp::min_xorsign: return handler<Extreme<false, false, true>, 2>(type, flush);
        case FloatOp::max_xorsign: return handler<Extreme<true, false, true>, 2>(type, flush);
        case FloatOp::min_nan_xorsign: return handler<Extreme<false, true, true>, 2>(type, flush);
        case FloatOp::max_nan_xorsign: return handler<Extreme<true, true, true>, 2>(type, flush);
        case FloatOp::abs: return bits_handler<AbsBits, 1>(packed);
        case FloatOp::neg: return bits_handler<NegBits, 1>(packed);
        case FloatOp::ex2: return handler<Exp2, 1>(type, flush);
        case FloatOp::tanh: return handler<Tanh, 1>(type, flush);
        case FloatOp::saturate: return handler<Saturate, 1>(type, false);
        case FloatOp::relu: return handler<Relu, 1>(type, false);
        default: return nullptr;
    }
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
