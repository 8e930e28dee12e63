// f32 and f64 instructions that round to nearest even; the other roundings are in rounded.cpp.
#include <cmath>
#include <limits>

#include "emulator/lanes/apply.h"
#include "emulator/lanes/approx.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

struct Add {
    template <class T>
    T operator()(T a, T b) const {
        return a + b;
    }
};
struct Sub {
    template <class T>
    T operator()(T a, T b) const {
        return a - b;
    }
};
struct Mul {
    template <class T>
    T operator()(T a, T b) const {
        return a * b;
    }
};
struct Div {
    template <class T>
    T operator()(T a, T b) const {
        return a / b;
    }
};
struct Fma {
    float operator()(float a, float b, float c) const { return __builtin_fmaf(a, b, c); }
    double operator()(double a, double b, double c) const { return __builtin_fma(a, b, c); }
};
template <bool Maximum, bool Nan, bool XorSign>
struct Extreme {
    template <class T>
    T operator()(T a, T b) const {
        const bool sign = std::signbit(a) != std::signbit(b);
        if (XorSign) {
            a = a < 0 || std::signbit(a) ? -a : a;
            b = b < 0 || std::signbit(b) ? -b : b;
        }
        // -0 is less than +0.
        const bool a_first = Maximum ? a > b || (a == b && !std::signbit(a)) : a < b || (a == b && std::signbit(a));
        T result = b != b || a_first ? a : b;
        if (Nan && (a != a || b != b)) result = std::numeric_limits<T>::quiet_NaN();
        if (XorSign) result = std::copysign(result, sign ? T{-1} : T{1});
        return result;
    }
};
struct Abs {
    template <class T>
    T operator()(T a) const {
        return std::fabs(a);
    }
};
struct Neg {
    template <class T>
    T operator()(T a) const {
        return -a;
    }
};
struct Rcp {
    template <class T>
    T operator()(T a) const {
        return 1 / a;
    }
};
struct Sqrt {
    template <class T>
    T operator()(T a) const {
        return std::sqrt(a);
    }
};
struct Rsqrt {
    template <class T>
    T operator()(T a) const {
        return 1 / std::sqrt(a);
    }
};
struct Sin {
    float operator()(float a) const { return std::sin(a); }
};
struct Cos {
    float operator()(float a) const { return std::cos(a); }
};
struct Log2 {
    float operator()(float a) const { return std::log2(a); }
};
struct Tanh {
    float operator()(float a) const { return std::tanh(a); }
};
struct Saturate {  // NaN becomes +0
    template <class T>
    T operator()(T a) const {
        return a > 0 ? (a < 1 ? a : T{1}) : T{0};
    }
};
struct Relu {
    template <class T>
    T operator()(T a) const {
        return a != a ? std::numeric_limits<T>::quiet_NaN() : a > 0 ? a : T{0};
    }
};
struct CopySign {  // the sign of a on b
    template <class T>
    T operator()(T a, T b) const {
        return std::copysign(b, a);
    }
};

// F on operands, and giving a result, without subnormals.
template <class F>
struct Flushed {
    float operator()(float a) const { return flushed(F()(flushed(a))); }
    float operator()(float a, float b) const { return flushed(F()(flushed(a), flushed(b))); }
    float operator()(float a, float b, float c) const { return flushed(F()(flushed(a), flushed(b), flushed(c))); }
};

template <class F>
Handler one(Type type, bool flush) {
    if (type == Type::f64) return unary<F, double, double>;
    return flush ? unary<Flushed<F>, float, float> : unary<F, float, float>;
}
template <class F>
Handler one32(bool flush) {
    return flush ? unary<Flushed<F>, float, float> : unary<F, float, float>;
}
template <class F>
Handler two(Type type, bool flush) {
    if (type == Type::f64) return binary<F, double, double, double>;
    return flush ? binary<Flushed<F>, float, float, float> : binary<F, float, float, float>;
}
template <class F>
Handler three(Type type, bool flush) {
    if (type == Type::f64) return ternary<F, double, double, double, double>;
    return flush ? ternary<Flushed<F>, float, float, float, float> : ternary<F, float, float, float, float>;
}

// testp: the property is op.value.
template <class T>
void testp(Warp& w, const Op& op) {
    enum { finite, infinite, number, notanumber, normal, subnormal };
    const T* a = row<T>(w, op.a);
    uint32_t result = 0;
    for (uint32_t i = 0; i < kLanes; ++i) {
        const int kind = std::fpclassify(a[i]);
        bool is = false;
        switch (op.value) {
            case finite:
                is = kind != FP_INFINITE && kind != FP_NAN;
                break;
            case infinite:
                is = kind == FP_INFINITE;
                break;
            case number:
                is = kind != FP_NAN;
                break;
            case notanumber:
                is = kind == FP_NAN;
                break;
            case normal:
                is = kind == FP_NORMAL;
                break;
            default:
                is = kind == FP_SUBNORMAL;
                break;
        }
        result |= static_cast<uint32_t>(is) << i;
    }
    set_predicate(w, op.d, result);
}

}  // namespace

Handler floating(FloatOp op, Type type, bool flush) {
    const bool single = type == Type::f32;
    if (!single && type != Type::f64) return nullptr;
    switch (op) {
        case FloatOp::add:
            return two<Add>(type, flush);
        case FloatOp::sub:
            return two<Sub>(type, flush);
        case FloatOp::mul:
            return two<Mul>(type, flush);
        case FloatOp::div:
            return two<Div>(type, flush);
        case FloatOp::fma:
            return three<Fma>(type, flush);
        case FloatOp::min:
            return two<Extreme<false, false, false>>(type, flush);
        case FloatOp::max:
            return two<Extreme<true, false, false>>(type, flush);
        case FloatOp::min_nan:
            return two<Extreme<false, true, false>>(type, flush);
        case FloatOp::max_nan:
            return two<Extreme<true, true, false>>(type, flush);
        case FloatOp::min_xorsign:
            return two<Extreme<false, false, true>>(type, flush);
        case FloatOp::max_xorsign:
            return two<Extreme<true, false, true>>(type, flush);
        case FloatOp::min_nan_xorsign:
            return two<Extreme<false, true, true>>(type, flush);
        case FloatOp::max_nan_xorsign:
            return two<Extreme<true, true, true>>(type, flush);
        case FloatOp::abs:
            return one<Abs>(type, flush);
        case FloatOp::neg:
            return one<Neg>(type, flush);
        case FloatOp::rcp:
            return one<Rcp>(type, flush);
        case FloatOp::sqrt:
            return one<Sqrt>(type, flush);
        case FloatOp::rsqrt:
            return one<Rsqrt>(type, flush);
        case FloatOp::sin:
            return single ? one32<Sin>(flush) : nullptr;
        case FloatOp::cos:
            return single ? one32<Cos>(flush) : nullptr;
        case FloatOp::lg2:
            return single ? one32<Log2>(flush) : nullptr;
        case FloatOp::ex2:
            return single ? one32<Exp2>(flush) : nullptr;
        case FloatOp::tanh:
            return single ? one32<Tanh>(flush) : nullptr;
        case FloatOp::copysign:
            return two<CopySign>(type, false);
        case FloatOp::saturate:
            return one<Saturate>(type, false);
        case FloatOp::relu:
            return one<Relu>(type, false);
        case FloatOp::testp:
            return single ? testp<float> : testp<double>;
    }
    return nullptr;
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
