// Arithmetic in the directed roundings. Compiled so that the rounding mode of the host is taken at its word.
#include <cfenv>
#include <cmath>

#include "emulator/decode.h"

namespace vlmk::emulator {
namespace {

template <class T>
T compute(FloatOp op, T a, T b, T c) {
    volatile T x = a, y = b, z = c;  // not moved across the change of mode
    switch (op) {
        case FloatOp::add:
            return x + y;
        case FloatOp::sub:
            return x - y;
        case FloatOp::mul:
            return x * y;
        case FloatOp::div:
            return x / y;
        case FloatOp::fma:
            return std::fma(static_cast<T>(x), static_cast<T>(y), static_cast<T>(z));
        case FloatOp::rcp:
            return 1 / x;
        default:
            return std::sqrt(static_cast<T>(x));
    }
}

float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; }
double flush(double x) { return x; }

// op.target: FloatOp, rounding and whether to flush.
template <class T>
void rounded(Warp& w, const Op& op) {
    const auto kind = static_cast<FloatOp>(op.target & 0xff);
    const bool flushes = (op.target >> 16 & 1) != 0;
    const auto rounding = static_cast<Rounding>(op.target >> 8 & 0xff);
    T* d = result_row<T>(w, op.d);
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b), *c = row<T>(w, op.c);
    const int before = std::fegetround();
    std::fesetround(rounding == Rounding::rz ? FE_TOWARDZERO : rounding == Rounding::rm ? FE_DOWNWARD : FE_UPWARD);
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto i = static_cast<uint32_t>(__builtin_ctz(left));
        volatile T result =
            flushes ? flush(compute(kind, flush(a[i]), flush(b[i]), flush(c[i]))) : compute(kind, a[i], b[i], c[i]);
        d[i] = result;
    }
    std::fesetround(before);
}

template <class T, FloatOp Kind, Rounding Mode, bool Flush>
void fixed(Warp& w, const Op& op) {
    Op with = op;
    with.target = static_cast<uint32_t>(Kind) | static_cast<uint32_t>(Mode) << 8 | (Flush ? 1U << 16 : 0);
    rounded<T>(w, with);
}
template <class T, FloatOp Kind, bool Flush>
Handler by_rounding(Rounding rounding) {
    switch (rounding) {
        case Rounding::rz:
            return fixed<T, Kind, Rounding::rz, Flush>;
        case Rounding::rm:
            return fixed<T, Kind, Rounding::rm, Flush>;
        case Rounding::rp:
            return fixed<T, Kind, Rounding::rp, Flush>;
        default:
            return nullptr;
    }
}
template <FloatOp Kind>
Handler by_type(Type type, Rounding rounding, bool flush) {
    if (type == Type::f64) return by_rounding<double, Kind, false>(rounding);
    if (type != Type::f32) return nullptr;
    return flush ? by_rounding<float, Kind, true>(rounding) : by_rounding<float, Kind, false>(rounding);
}

}  // namespace

Handler rounded_handler(FloatOp op, Type type, Rounding rounding, bool flush) {
    switch (op) {
        case FloatOp::add:
            return by_type<FloatOp::add>(type, rounding, flush);
        case FloatOp::sub:
            return by_type<FloatOp::sub>(type, rounding, flush);
        case FloatOp::mul:
            return by_type<FloatOp::mul>(type, rounding, flush);
        case FloatOp::div:
            return by_type<FloatOp::div>(type, rounding, flush);
        case FloatOp::fma:
            return by_type<FloatOp::fma>(type, rounding, flush);
        case FloatOp::rcp:
            return by_type<FloatOp::rcp>(type, rounding, flush);
        case FloatOp::sqrt:
            return by_type<FloatOp::sqrt>(type, rounding, flush);
        default:
            return nullptr;
    }
}

}  // namespace vlmk::emulator
