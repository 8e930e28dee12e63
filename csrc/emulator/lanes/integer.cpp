// Integer and logic instructions.
#include "emulator/lanes/apply.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
constexpr uint32_t kBits = 8 * sizeof(T);
// The next wider type.
template <class T>
using Wide = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                                std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;
__extension__ using Int128 = __int128;
__extension__ using Uint128 = unsigned __int128;

template <class T>
T high_product(T a, T b) {
    if constexpr (sizeof(T) == 8) {
        if constexpr (std::is_signed_v<T>)
            return static_cast<T>((static_cast<Int128>(a) * b) >> 64);
        else
            return static_cast<T>((static_cast<Uint128>(a) * b) >> 64);
    } else {
        return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> kBits<T>);
    }
}
template <class T>
T low_product(T a, T b) {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
inline int32_t saturated(int64_t x) {
    return static_cast<int32_t>(x < INT32_MIN ? INT32_MIN : x > INT32_MAX ? INT32_MAX : x);
}
template <class T>
T low24(T x) {  // sign-extended for signed types
    return static_cast<T>(static_cast<T>(static_cast<uint32_t>(x) << 8) >> 8);
}

struct Add {
    template <class T>
    T operator()(T a, T b) const {
        return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
    }
};
struct Sub {
    template <class T>
    T operator()(T a, T b) const {
        return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
    }
};
struct MulLo {
    template <class T>
    T operator()(T a, T b) const {
        return low_product(a, b);
    }
};
struct MulHi {
    template <class T>
    T operator()(T a, T b) const {
        return high_product(a, b);
    }
};
struct MulWide {
    template <class T>
    Wide<T> operator()(T a, T b) const {
        return static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b);
    }
};
struct MadLo {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(low_product(a, b), c);
    }
};
struct MadHi {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(high_product(a, b), c);
    }
};
struct MadWide {
    template <class T>
    Wide<T> operator()(T a, T b, Wide<T> c) const {
        return Add()(MulWide()(a, b), c);
    }
};
struct MadHiSat {
    int32_t operator()(int32_t a, int32_t b, int32_t c) const { return saturated(int64_t{high_product(a, b)} + c); }
};
struct Mul24Lo {
    template <class T>
    T operator()(T a, T b) const {
        return low_product(low24(a), low24(b));
    }
};
struct Mul24Hi {  // bits 16 to 47 of the 48-bit product
    template <class T>
    T operator()(T a, T b) const {
        return static_cast<T>((Wide<T>{low24(a)} * low24(b)) >> 16);
    }
};
struct Mad24Lo {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(Mul24Lo()(a, b), c);
    }
};
struct Mad24Hi {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(Mul24Hi()(a, b), c);
    }
};
struct Sad {
    template <class T>
    T operator()(T a, T b, T c) const {
        return Add()(c, a < b ? Sub()(b, a) : Sub()(a, b));
    }
};
// Division by zero gives all ones and the dividend, as GPUs do; the smallest number over -1 wraps.
struct Div {
    template <class T>
    T operator()(T a, T b) const {
        if (b == 0) return static_cast<T>(~T{0});
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub()(T{0}, a);
        return static_cast<T>(a / b);
    }
};
struct Rem {
    template <class T>
    T operator()(T a, T b) const {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
        return static_cast<T>(a % b);
    }
};
struct Neg {
    template <class T>
    T operator()(T a) const {
        return Sub()(T{0}, a);
    }
};
struct Abs {
    template <class T>
    T operator()(T a) const {
        return a < 0 ? Neg()(a) : a;
    }
};
struct Relu {
    template <class T>
    T operator()(T a) const {
        return a < 0 ? T{0} : a;
    }
};
struct Min {
    template <class T>
    T operator()(T a, T b) const {
        return a < b ? a : b;
    }
};
struct Max {
    template <class T>
    T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};
struct AddSat {
    int32_t operator()(int32_t a, int32_t b) const { return saturated(int64_t{a} + b); }
};
struct SubSat {
    int32_t operator()(int32_t a, int32_t b) const { return saturated(int64_t{a} - b); }
};
// A 16-bit SIMD instruction as two 16-bit ones.
template <class F, class T>
struct Twice {
    static T part(uint32_t x, int shift) { return static_cast<T>(x >> shift); }
    static uint32_t join(T low, T high) {
        return static_cast<uint16_t>(low) | static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16;
    }
    uint32_t operator()(uint32_t a) const { return join(F()(part(a, 0)), F()(part(a, 16))); }
    uint32_t operator()(uint32_t a, uint32_t b) const {
        return join(F()(part(a, 0), part(b, 0)), F()(part(a, 16), part(b, 16)));
    }
};

struct Popc {
    uint32_t operator()(uint32_t a) const { return static_cast<uint32_t>(__builtin_popcount(a)); }
    uint32_t operator()(uint64_t a) const { return static_cast<uint32_t>(__builtin_popcountll(a)); }
};
struct Clz {
    uint32_t operator()(uint32_t a) const { return a == 0 ? 32 : static_cast<uint32_t>(__builtin_clz(a)); }
    uint32_t operator()(uint64_t a) const { return a == 0 ? 64 : static_cast<uint32_t>(__builtin_clzll(a)); }
};
// The highest bit that differs from the sign; all ones where there is none.
template <bool Shift>
struct Bfind {
    template <class T>
    uint32_t operator()(T a) const {
        const auto bits = static_cast<Unsigned<T>>(a < 0 ? ~a : a);
        if (bits == 0) return ~0U;
        const uint32_t position = kBits<T> - 1 - Clz()(bits);
        return Shift ? kBits<T> - 1 - position : position;
    }
};
struct Brev {
    template <class T>
    T operator()(T a) const {
        T result = 0;
        for (uint32_t i = 0; i < kBits<T>; ++i) result |= ((a >> i) & 1) << (kBits<T> - 1 - i);
        return result;
    }
};
struct Bfe {
    template <class T>
    T operator()(T a, uint32_t position, uint32_t length) const {
        constexpr uint32_t msb = kBits<T> - 1;
        position &= 0xff;
        length &= 0xff;
        const auto bits = static_cast<Unsigned<T>>(a);
        if (length == 0) return 0;
        const uint64_t last = uint64_t{position} + length - 1;
        const bool sign = std::is_signed_v<T> && ((bits >> (last < msb ? last : msb)) & 1) != 0;
        Unsigned<T> field = position > msb ? Unsigned<T>{0} : static_cast<Unsigned<T>>(bits >> position);
        // Above the field, and above the register, comes the sign.
        const uint32_t valid = position > msb ? 0 : (length < kBits<T> - position ? length : kBits<T> - position);
        if (valid < kBits<T>) {
            const Unsigned<T> mask = static_cast<Unsigned<T>>((Unsigned<T>{1} << valid) - 1);
            field =
                static_cast<Unsigned<T>>((field & mask) | (sign ? static_cast<Unsigned<T>>(~mask) : Unsigned<T>{0}));
        }
        return static_cast<T>(field);
    }
};
// bfi has four sources; the last two come from the list of further operands.
template <class T>
void bfi(Warp& w, const Op& op) {
    T* d = result_row<T>(w, op.d);
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b);
    const uint32_t *c = row<uint32_t>(w, op.c), *e = row<uint32_t>(w, list(w, op)[0]);
    each_lane(w.active, [=](uint32_t i) {
        const uint32_t position = c[i] & 0xff, length = e[i] & 0xff;
        if (position >= kBits<T> || length == 0) {
            d[i] = b[i];
            return;
        }
        const T field = length >= kBits<T> ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << length) - 1);
        const T mask = static_cast<T>(field << position);
        d[i] = static_cast<T>((b[i] & ~mask) | ((a[i] << position) & mask));
    });
}
template <bool Wrap>
struct Szext {
    template <class T>
    T operator()(T a, uint32_t width) const {
        if (Wrap) width &= 31;
        if (width >= 32) return a;
        if (width == 0) return 0;
        return static_cast<T>(static_cast<T>(static_cast<uint32_t>(a) << (32 - width)) >> (32 - width));
    }
};
template <bool Wrap>
struct Bmsk {
    uint32_t operator()(uint32_t position, uint32_t width) const {
        if (Wrap) {
            position &= 31;
            width &= 31;
        }
        if (position >= 32 || width == 0) return 0;
        const uint32_t ones = width >= 32 ? ~0U : (1U << width) - 1;
        return ones << position;
    }
};
struct Fns {
    uint32_t operator()(uint32_t mask, uint32_t base, int32_t offset) const {
        if (base >= 32) return ~0U;
        int32_t left = offset == 0 ? 1 : offset < 0 ? -offset : offset;
        for (int32_t i = static_cast<int32_t>(base); i >= 0 && i < 32; i += offset < 0 ? -1 : 1) {
            if ((mask >> i & 1) != 0 && --left == 0) return static_cast<uint32_t>(i);
            if (offset == 0) break;
        }
        return ~0U;
    }
};
struct And {
    template <class T>
    T operator()(T a, T b) const {
        return a & b;
    }
};
struct Or {
    template <class T>
    T operator()(T a, T b) const {
        return a | b;
    }
};
struct Xor {
    template <class T>
    T operator()(T a, T b) const {
        return a ^ b;
    }
};
struct Not {
    template <class T>
    T operator()(T a) const {
        return static_cast<T>(~a);
    }
};
struct Cnot {
    template <class T>
    T operator()(T a) const {
        return a == 0 ? 1 : 0;
    }
};
void lop3(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const uint32_t *a = row<uint32_t>(w, op.a), *b = row<uint32_t>(w, op.b), *c = row<uint32_t>(w, op.c);
    uint32_t on[8];  // the minterms of the truth table
    for (uint32_t i = 0; i < 8; ++i) on[i] = (op.value >> i & 1) != 0 ? ~0U : 0;
    each_lane(w.active, [=](uint32_t i) {
        const uint32_t x = a[i], y = b[i], z = c[i];
        const uint32_t low = (~y & ((~z & on[0]) | (z & on[1]))) | (y & ((~z & on[2]) | (z & on[3])));
        const uint32_t high = (~y & ((~z & on[4]) | (z & on[5]))) | (y & ((~z & on[6]) | (z & on[7])));
        d[i] = (~x & low) | (x & high);
    });
}
// The 64-bit funnel c:b... as the ISA defines it: a is the low, b the high word.
template <bool Left, bool Wrap>
struct Shf {
    uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
        const uint32_t n = Wrap ? c & 31 : (c < 32 ? c : 32);
        const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
        return static_cast<uint32_t>(Left ? (both << n) >> 32 : both >> n);
    }
};
struct Shl {
    template <class T>
    T operator()(T a, uint32_t n) const {
        return n >= kBits<T> ? T{0} : static_cast<T>(a << n);
    }
};
struct Shr {
    template <class T>
    T operator()(T a, uint32_t n) const {
        if (n >= kBits<T>) return std::is_signed_v<T> && a < 0 ? static_cast<T>(-1) : T{0};
        return static_cast<T>(a >> n);
    }
};
void prmt(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const uint32_t *a = row<uint32_t>(w, op.a), *b = row<uint32_t>(w, op.b), *c = row<uint32_t>(w, op.c);
    enum { index, f4e, b4e, rc8, ecl, ecr, rc16 };
    const auto mode = op.value;
    each_lane(w.active, [=](uint32_t i) {
        const uint64_t bytes = static_cast<uint64_t>(b[i]) << 32 | a[i];
        uint32_t result = 0;
        for (uint32_t k = 0; k < 4; ++k) {
            const uint32_t s = c[i] & 3;
            uint32_t selector = 0;
            switch (mode) {
                case index:
                    selector = c[i] >> (4 * k) & 15;
                    break;
                case f4e:
                    selector = s + k;
                    break;
                case b4e:
                    selector = (s + 8 - k) & 7;
                    break;
                case rc8:
                    selector = s;
                    break;
                case ecl:
                    selector = k > s ? k : s;
                    break;
                case ecr:
                    selector = k < s ? k : s;
                    break;
                default:
                    selector = (s & 1) * 2 + (k & 1);
                    break;
            }
            uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (selector & 7))) & 0xff;
            if ((selector & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
            result |= byte << (8 * k);
        }
        d[i] = result;
    });
}
int32_t element8(uint32_t x, uint32_t i, bool is_signed) {
    const uint32_t byte = x >> (8 * i) & 0xff;
    return is_signed ? static_cast<int8_t>(byte) : static_cast<int32_t>(byte);
}
int32_t element16(uint32_t x, uint32_t i, bool is_signed) {
    const uint32_t half = x >> (16 * i) & 0xffff;
    return is_signed ? static_cast<int16_t>(half) : static_cast<int32_t>(half);
}
void dp4a(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const uint32_t *a = row<uint32_t>(w, op.a), *b = row<uint32_t>(w, op.b), *c = row<uint32_t>(w, op.c);
    const bool sa = (op.flags & kSignedA) != 0, sb = (op.flags & kSignedB) != 0;
    each_lane(w.active, [=](uint32_t i) {
        uint32_t sum = c[i];
        for (uint32_t k = 0; k < 4; ++k) sum += static_cast<uint32_t>(element8(a[i], k, sa) * element8(b[i], k, sb));
        d[i] = sum;
    });
}
template <uint32_t First>
void dp2a(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const uint32_t *a = row<uint32_t>(w, op.a), *b = row<uint32_t>(w, op.b), *c = row<uint32_t>(w, op.c);
    const bool sa = (op.flags & kSignedA) != 0, sb = (op.flags & kSignedB) != 0;
    each_lane(w.active, [=](uint32_t i) {
        uint32_t sum = c[i];
        for (uint32_t k = 0; k < 2; ++k)
            sum += static_cast<uint32_t>(element16(a[i], k, sa) * element8(b[i], First + k, sb));
        d[i] = sum;
    });
}
// Extended precision: the carry is predicate op.target.
template <class T, IntegerOp Kind>
void carry(Warp& w, const Op& op) {
    T* d = result_row<T>(w, op.d);
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b);
    const T* c = row<T>(w, op.c);
    const uint32_t in = (op.flags & kCarryIn) != 0 ? w.predicates[op.target] : 0;
    uint32_t out = 0;
    for (uint32_t lanes = w.active; lanes != 0; lanes &= lanes - 1) {
        const auto i = static_cast<uint32_t>(__builtin_ctz(lanes));
        const T one = in >> i & 1;
        T result;
        bool overflow;
        if constexpr (Kind == IntegerOp::sub_carry) {  // the carry is a borrow
            const T first = a[i] - b[i];
            result = first - one;
            overflow = a[i] < b[i] || first < one;
        } else {
            T x = a[i], y = b[i];
            if constexpr (Kind != IntegerOp::add_carry) {
                x = Kind == IntegerOp::mad_lo_carry ? low_product(x, y) : high_product(x, y);
                y = c[i];
            }
            const T first = x + y;
            result = first + one;
            overflow = first < x || result < first;
        }
        d[i] = result;
        out |= static_cast<uint32_t>(overflow) << i;
    }
    if ((op.flags & kCarryOut) != 0) set_predicate(w, op.target, out);
}

// Picks the instantiation for a type.
template <class F>
Handler signed_or_not(Type type) {
    switch (type) {
        case Type::u16:
            return binary<F, uint16_t, uint16_t, uint16_t>;
        case Type::s16:
            return binary<F, int16_t, int16_t, int16_t>;
        case Type::u32:
            return binary<F, uint32_t, uint32_t, uint32_t>;
        case Type::s32:
            return binary<F, int32_t, int32_t, int32_t>;
        case Type::u64:
            return binary<F, uint64_t, uint64_t, uint64_t>;
        case Type::s64:
            return binary<F, int64_t, int64_t, int64_t>;
        case Type::u16x2:
            return binary<Twice<F, uint16_t>, uint32_t, uint32_t, uint32_t>;
        case Type::s16x2:
            return binary<Twice<F, int16_t>, uint32_t, uint32_t, uint32_t>;
        default:
            return nullptr;
    }
}
template <class F>
Handler by_width(Type type) {
    switch (size_of(type)) {
        case 2:
            return binary<F, uint16_t, uint16_t, uint16_t>;
        case 4:
            if (type == Type::u16x2 || type == Type::s16x2)
                return binary<Twice<F, uint16_t>, uint32_t, uint32_t, uint32_t>;
            return binary<F, uint32_t, uint32_t, uint32_t>;
        case 8:
            return binary<F, uint64_t, uint64_t, uint64_t>;
        default:
            return nullptr;
    }
}
template <class F>
Handler unary_by_width(Type type) {
    switch (size_of(type)) {
        case 2:
            return unary<F, uint16_t, uint16_t>;
        case 4:
            return unary<F, uint32_t, uint32_t>;
        case 8:
            return unary<F, uint64_t, uint64_t>;
        default:
            return nullptr;
    }
}
template <class F>
Handler unary_signed(Type type) {
    switch (type) {
        case Type::s16:
            return unary<F, int16_t, int16_t>;
        case Type::s32:
            return unary<F, int32_t, int32_t>;
        case Type::s64:
            return unary<F, int64_t, int64_t>;
        case Type::s16x2:
            return unary<Twice<F, int16_t>, uint32_t, uint32_t>;
        default:
            return nullptr;
    }
}
template <class F>
Handler ternary_signed_or_not(Type type) {
    switch (type) {
        case Type::u16:
            return ternary<F, uint16_t, uint16_t, uint16_t, uint16_t>;
        case Type::s16:
            return ternary<F, int16_t, int16_t, int16_t, int16_t>;
        case Type::u32:
            return ternary<F, uint32_t, uint32_t, uint32_t, uint32_t>;
        case Type::s32:
            return ternary<F, int32_t, int32_t, int32_t, int32_t>;
        case Type::u64:
            return ternary<F, uint64_t, uint64_t, uint64_t, uint64_t>;
        case Type::s64:
            return ternary<F, int64_t, int64_t, int64_t, int64_t>;
        default:
            return nullptr;
    }
}
template <class F>
Handler only32(Type type) {
    return type == Type::u32   ? binary<F, uint32_t, uint32_t, uint32_t>
           : type == Type::s32 ? binary<F, int32_t, int32_t, int32_t>
                               : nullptr;
}
template <class F>
Handler ternary32(Type type) {
    return type == Type::u32   ? ternary<F, uint32_t, uint32_t, uint32_t, uint32_t>
           : type == Type::s32 ? ternary<F, int32_t, int32_t, int32_t, int32_t>
                               : nullptr;
}
template <IntegerOp Kind>
Handler carry_by_width(Type type) {
    return size_of(type) == 4 ? carry<uint32_t, Kind> : size_of(type) == 8 ? carry<uint64_t, Kind> : nullptr;
}
template <class F>
Handler count_by_width(Type type) {
    return size_of(type) == 4   ? unary<F, uint32_t, uint32_t>
           : size_of(type) == 8 ? unary<F, uint32_t, uint64_t>
                                : nullptr;
}
template <class F>
Handler find_bit(Type type) {
    switch (type) {
        case Type::u32:
            return unary<F, uint32_t, uint32_t>;
        case Type::s32:
            return unary<F, uint32_t, int32_t>;
        case Type::u64:
            return unary<F, uint32_t, uint64_t>;
        case Type::s64:
            return unary<F, uint32_t, int64_t>;
        default:
            return nullptr;
    }
}

}  // namespace

Handler integer(IntegerOp op, Type type) {
    const uint32_t size = size_of(type);
    switch (op) {
        case IntegerOp::add:
            return by_width<Add>(type);
        case IntegerOp::sub:
            return by_width<Sub>(type);
        case IntegerOp::mul_lo:
            return by_width<MulLo>(type);
        case IntegerOp::mul_hi:
            return signed_or_not<MulHi>(type);
        case IntegerOp::mul_wide:
            switch (type) {
                case Type::u16:
                    return binary<MulWide, uint32_t, uint16_t, uint16_t>;
                case Type::s16:
                    return binary<MulWide, int32_t, int16_t, int16_t>;
                case Type::u32:
                    return binary<MulWide, uint64_t, uint32_t, uint32_t>;
                case Type::s32:
                    return binary<MulWide, int64_t, int32_t, int32_t>;
                default:
                    return nullptr;
            }
        case IntegerOp::mad_lo:
            return ternary_signed_or_not<MadLo>(type);
        case IntegerOp::mad_hi:
            return ternary_signed_or_not<MadHi>(type);
        case IntegerOp::mad_wide:
            switch (type) {
                case Type::u16:
                    return ternary<MadWide, uint32_t, uint16_t, uint16_t, uint32_t>;
                case Type::s16:
                    return ternary<MadWide, int32_t, int16_t, int16_t, int32_t>;
                case Type::u32:
                    return ternary<MadWide, uint64_t, uint32_t, uint32_t, uint64_t>;
                case Type::s32:
                    return ternary<MadWide, int64_t, int32_t, int32_t, int64_t>;
                default:
                    return nullptr;
            }
        case IntegerOp::mul24_lo:
            return only32<Mul24Lo>(type);
        case IntegerOp::mul24_hi:
            return only32<Mul24Hi>(type);
        case IntegerOp::mad24_lo:
            return ternary32<Mad24Lo>(type);
        case IntegerOp::mad24_hi:
            return ternary32<Mad24Hi>(type);
        case IntegerOp::sad:
            return ternary_signed_or_not<Sad>(type);
        case IntegerOp::div:
            return signed_or_not<Div>(type);
        case IntegerOp::rem:
            return signed_or_not<Rem>(type);
        case IntegerOp::abs:
            return unary_signed<Abs>(type);
        case IntegerOp::neg:
            return unary_signed<Neg>(type);
        case IntegerOp::relu:
            return unary_signed<Relu>(type);
        case IntegerOp::min:
            return signed_or_not<Min>(type);
        case IntegerOp::max:
            return signed_or_not<Max>(type);
        case IntegerOp::add_sat:
            return type == Type::s32 ? binary<AddSat, int32_t, int32_t, int32_t> : nullptr;
        case IntegerOp::sub_sat:
            return type == Type::s32 ? binary<SubSat, int32_t, int32_t, int32_t> : nullptr;
        case IntegerOp::mad_hi_sat:
            return type == Type::s32 ? ternary<MadHiSat, int32_t, int32_t, int32_t, int32_t> : nullptr;
        case IntegerOp::popc:
            return count_by_width<Popc>(type);
        case IntegerOp::clz:
            return count_by_width<Clz>(type);
        case IntegerOp::bfind:
            return find_bit<Bfind<false>>(type);
        case IntegerOp::bfind_shift:
            return find_bit<Bfind<true>>(type);
        case IntegerOp::brev:
            return size == 4 ? unary<Brev, uint32_t, uint32_t> : size == 8 ? unary<Brev, uint64_t, uint64_t> : nullptr;
        case IntegerOp::bfe:
            switch (type) {
                case Type::u32:
                    return ternary<Bfe, uint32_t, uint32_t, uint32_t, uint32_t>;
                case Type::s32:
                    return ternary<Bfe, int32_t, int32_t, uint32_t, uint32_t>;
                case Type::u64:
                    return ternary<Bfe, uint64_t, uint64_t, uint32_t, uint32_t>;
                case Type::s64:
                    return ternary<Bfe, int64_t, int64_t, uint32_t, uint32_t>;
                default:
                    return nullptr;
            }
        case IntegerOp::bfi:
            return size == 4 ? bfi<uint32_t> : size == 8 ? bfi<uint64_t> : nullptr;
        case IntegerOp::szext_clamp:
            return type == Type::s32   ? binary<Szext<false>, int32_t, int32_t, uint32_t>
                   : type == Type::u32 ? binary<Szext<false>, uint32_t, uint32_t, uint32_t>
                                       : nullptr;
        case IntegerOp::szext_wrap:
            return type == Type::s32   ? binary<Szext<true>, int32_t, int32_t, uint32_t>
                   : type == Type::u32 ? binary<Szext<true>, uint32_t, uint32_t, uint32_t>
                                       : nullptr;
        case IntegerOp::bmsk_clamp:
            return binary<Bmsk<false>, uint32_t, uint32_t, uint32_t>;
        case IntegerOp::bmsk_wrap:
            return binary<Bmsk<true>, uint32_t, uint32_t, uint32_t>;
        case IntegerOp::fns:
            return ternary<Fns, uint32_t, uint32_t, uint32_t, int32_t>;
        case IntegerOp::and_:
            return by_width<And>(type);
        case IntegerOp::or_:
            return by_width<Or>(type);
        case IntegerOp::xor_:
            return by_width<Xor>(type);
        case IntegerOp::not_:
            return unary_by_width<Not>(type);
        case IntegerOp::cnot:
            return unary_by_width<Cnot>(type);
        case IntegerOp::lop3:
            return lop3;
        case IntegerOp::shf_l_wrap:
            return ternary<Shf<true, true>, uint32_t, uint32_t, uint32_t, uint32_t>;
        case IntegerOp::shf_l_clamp:
            return ternary<Shf<true, false>, uint32_t, uint32_t, uint32_t, uint32_t>;
        case IntegerOp::shf_r_wrap:
            return ternary<Shf<false, true>, uint32_t, uint32_t, uint32_t, uint32_t>;
        case IntegerOp::shf_r_clamp:
            return ternary<Shf<false, false>, uint32_t, uint32_t, uint32_t, uint32_t>;
        case IntegerOp::shl:
            return size == 2   ? binary<Shl, uint16_t, uint16_t, uint32_t>
                   : size == 4 ? binary<Shl, uint32_t, uint32_t, uint32_t>
                   : size == 8 ? binary<Shl, uint64_t, uint64_t, uint32_t>
                               : nullptr;
        case IntegerOp::shr:
            switch (type) {
                case Type::s16:
                    return binary<Shr, int16_t, int16_t, uint32_t>;
                case Type::s32:
                    return binary<Shr, int32_t, int32_t, uint32_t>;
                case Type::s64:
                    return binary<Shr, int64_t, int64_t, uint32_t>;
                default:
                    return size == 2   ? binary<Shr, uint16_t, uint16_t, uint32_t>
                           : size == 4 ? binary<Shr, uint32_t, uint32_t, uint32_t>
                           : size == 8 ? binary<Shr, uint64_t, uint64_t, uint32_t>
                                       : nullptr;
            }
        case IntegerOp::prmt:
            return prmt;
        case IntegerOp::dp4a:
            return dp4a;
        case IntegerOp::dp2a_lo:
            return dp2a<0>;
        case IntegerOp::dp2a_hi:
            return dp2a<2>;
        case IntegerOp::add_carry:
            return carry_by_width<IntegerOp::add_carry>(type);
        case IntegerOp::sub_carry:
            return carry_by_width<IntegerOp::sub_carry>(type);
        case IntegerOp::mad_lo_carry:
            return carry_by_width<IntegerOp::mad_lo_carry>(type);
        case IntegerOp::mad_hi_carry:
            return type == Type::u32 || type == Type::u64 ? carry_by_width<IntegerOp::mad_hi_carry>(type) : nullptr;
    }
    return nullptr;
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
