// The conversions that kernels do often; all others go the slow way in convert.cpp beside.
#include <cmath>

#include "emulator/lanes/apply.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

struct Keep {
    template <class T>
    T operator()(T a) const {
        return a;
    }
};
// Integers from integers: the register's width is that of D, the source type decides how it is extended.
template <class D>
Handler extend(Type from) {
    switch (from) {
        case Type::u16:
            return unary<Keep, D, uint16_t>;
        case Type::s16:
            return unary<Keep, D, int16_t>;
        case Type::u32:
            return unary<Keep, D, uint32_t>;
        case Type::s32:
            return unary<Keep, D, int32_t>;
        case Type::u64:
            return unary<Keep, D, uint64_t>;
        case Type::s64:
            return unary<Keep, D, int64_t>;
        default:
            return nullptr;
    }
}
template <class H>
struct Widen {
    float operator()(uint16_t bits) const { return to_float(H{bits}); }
};
template <class H>
struct Narrow {
    uint16_t operator()(float value) const {
        H half;
        from_float(value, half);
        return value != value ? uint16_t{0x7fff} : half.bits;
    }
};
// cvt.rn.f16x2.f32 d, a, b: a above b.
template <class H>
struct Pack {
    uint32_t operator()(float high, float low) const {
        return static_cast<uint32_t>(Narrow<H>()(high)) << 16 | Narrow<H>()(low);
    }
};
struct ToInt {  // towards zero, saturated; NaN gives 0
    int32_t operator()(float a) const {
        const float limited = a > -2147483648.0F ? a : (a != a ? 0.0F : -2147483648.0F);
        return limited < 2147483648.0F ? static_cast<int32_t>(limited) : INT32_MAX;
    }
};
struct RoundToInt {
    int32_t operator()(float a) const { return ToInt()(__builtin_rintf(a)); }
};
struct Tf32 {  // nearest, ties away from zero
    uint32_t operator()(uint32_t bits) const {
        const uint32_t magnitude = bits & 0x7fffffffU;
        if (magnitude > 0x7f800000U) return 0x7fffffffU;
        return magnitude == 0x7f800000U ? bits : (bits + 0x1000U) & ~0x1fffU;
    }
};

}  // namespace

Handler convert(Type to, Type from, Rounding rounding, bool integral) {
    const bool nearest = rounding == Rounding::rn || rounding == Rounding::none;
    if (!is_float(to) && !is_float(from) && to != Type::pred) {
        switch (size_of(to)) {
            case 2:
                return extend<uint16_t>(from);
            case 4:
                return extend<uint32_t>(from);
            case 8:
                return extend<uint64_t>(from);
            default:
                return nullptr;
        }
    }
    if (to == Type::f32 && from == Type::f16 && !integral) return unary<Widen<f16>, float, uint16_t>;
    if (to == Type::f32 && from == Type::bf16 && !integral) return unary<Widen<bf16>, float, uint16_t>;
    if (to == Type::f16 && from == Type::f32 && nearest && !integral) return unary<Narrow<f16>, uint16_t, float>;
    if (to == Type::bf16 && from == Type::f32 && nearest && !integral) return unary<Narrow<bf16>, uint16_t, float>;
    if (to == Type::f16x2 && from == Type::f32 && nearest) return binary<Pack<f16>, uint32_t, float, float>;
    if (to == Type::bf16x2 && from == Type::f32 && nearest) return binary<Pack<bf16>, uint32_t, float, float>;
    if (to == Type::f32 && from == Type::s32 && nearest) return unary<Keep, float, int32_t>;
    if (to == Type::f32 && from == Type::u32 && nearest) return unary<Keep, float, uint32_t>;
    if (to == Type::s32 && from == Type::f32 && rounding == Rounding::rz) return unary<ToInt, int32_t, float>;
    if (to == Type::s32 && from == Type::f32 && rounding == Rounding::rn) return unary<RoundToInt, int32_t, float>;
    if (to == Type::f64 && from == Type::f32 && !integral) return unary<Keep, double, float>;
    if (to == Type::f32 && from == Type::f64 && nearest && !integral) return unary<Keep, float, double>;
    if (to == Type::f64 && from == Type::s32) return unary<Keep, double, int32_t>;
    if (to == Type::f64 && from == Type::u32) return unary<Keep, double, uint32_t>;
    if (to == Type::tf32 && from == Type::f32 && rounding == Rounding::rna) return unary<Tf32, uint32_t, uint32_t>;
    return nullptr;
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
