// setp, set and selp. A comparison is a set of relations (less, equal, greater, unordered) in the flags of the op.
#include "emulator/lanes/apply.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

template <class T>
T operand(T value, bool) {
    return value;
}
inline float operand(float value, bool flush) { return flush ? flushed(value) : value; }
inline float operand(f16 value, bool flush) {
    if (flush && (value.bits & 0x7c00) == 0) value.bits &= 0x8000;
    return to_float(value);
}
inline float operand(bf16 value, bool) { return to_float(value); }

// Elements of a row `Stride` apart; packed pairs are compared twice.
template <class T, uint32_t Stride = 1>
uint32_t compare(const Op& op, const T* a, const T* b) {
    const uint32_t relations = op.flags >> kFamily & 15;
    const bool flush = (op.flags & kFlushInputs) != 0;
    uint32_t result = 0;
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const auto x = operand(a[lane * Stride], flush), y = operand(b[lane * Stride], flush);
        const uint32_t relation = x < y ? 0 : x == y ? 1 : x > y ? 2 : 3;
        result |= (relations >> relation & 1) << lane;
    }
    return result;
}

uint32_t combined(const Warp& w, const Op& op, uint32_t result) {
    if ((op.flags & (kCombineAnd | kCombineOr | kCombineXor)) == 0) return result;
    uint32_t other = w.predicates[op.c];
    if ((op.flags & kCombineNegated) != 0) other = ~other;
    if ((op.flags & kCombineAnd) != 0) return result & other;
    return (op.flags & kCombineOr) != 0 ? result | other : result ^ other;
}

// The second destination, op.target, is the opposite.
template <class T>
void setp(Warp& w, const Op& op) {
    const uint32_t result = compare(op, row<T>(w, op.a), row<T>(w, op.b));
    const uint32_t p = combined(w, op, result), q = combined(w, op, ~result);
    set_predicate(w, op.d, p);
    set_predicate(w, op.target, q);
}
// The second destination belongs to the upper halves.
template <class T>
void setp_pair(Warp& w, const Op& op) {
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b);
    const uint32_t p = combined(w, op, compare<T, 2>(op, a, b));
    const uint32_t q = combined(w, op, compare<T, 2>(op, a + 1, b + 1));
    set_predicate(w, op.d, p);
    set_predicate(w, op.target, q);
}
template <class T>
void set(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const uint32_t result = combined(w, op, compare(op, row<T>(w, op.a), row<T>(w, op.b)));
    const uint32_t yes = (op.flags & kResultFloat) != 0 ? 0x3f800000U : ~0U;
    each_lane(w.active, [=](uint32_t i) { d[i] = (result >> i & 1) != 0 ? yes : 0; });
}
// Packed and 16-bit results: op.value is what true looks like.
template <class T>
void set_half(Warp& w, const Op& op) {
    uint16_t* d = result_row<uint16_t>(w, op.d);
    const uint32_t result = combined(w, op, compare(op, row<T>(w, op.a), row<T>(w, op.b)));
    const auto yes = static_cast<uint16_t>(op.value);
    each_lane(w.active, [=](uint32_t i) { d[i] = (result >> i & 1) != 0 ? yes : uint16_t{0}; });
}
template <class T>
void set_pair(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b);
    const uint32_t low = combined(w, op, compare<T, 2>(op, a, b)),
                   high = combined(w, op, compare<T, 2>(op, a + 1, b + 1));
    const auto yes = static_cast<uint32_t>(op.value);
    each_lane(w.active,
              [=](uint32_t i) { d[i] = ((low >> i & 1) != 0 ? yes : 0) | ((high >> i & 1) != 0 ? yes << 16 : 0); });
}

// op.target is the predicate.
template <class T>
void selp(Warp& w, const Op& op) {
    T* d = result_row<T>(w, op.d);
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b);
    const uint32_t p = w.predicates[op.target] ^ ((op.flags & kCombineNegated) != 0 ? ~0U : 0);
    each_lane(w.active, [=](uint32_t i) { d[i] = (p >> i & 1) != 0 ? a[i] : b[i]; });
}
template <class T>
void mov(Warp& w, const Op& op) {
    T* d = result_row<T>(w, op.d);
    const T* a = row<T>(w, op.a);
    each_lane(w.active, [=](uint32_t i) { d[i] = a[i]; });
}

template <class T>
Handler scalar(Type result) {
    if (result == Type::pred) return setp<T>;
    return size_of(result) == 4 ? set<T> : nullptr;
}
template <class T>
Handler halves(Type result) {
    if (result == Type::pred) return setp<T>;
    return size_of(result) == 4 ? set<T> : set_half<T>;
}

}  // namespace

Handler compare(Type type, Type result) {
    switch (type) {
        case Type::b16:
        case Type::u16:
            return scalar<uint16_t>(result);
        case Type::s16:
            return scalar<int16_t>(result);
        case Type::b32:
        case Type::u32:
            return scalar<uint32_t>(result);
        case Type::s32:
            return scalar<int32_t>(result);
        case Type::b64:
        case Type::u64:
            return scalar<uint64_t>(result);
        case Type::s64:
            return scalar<int64_t>(result);
        case Type::f32:
            return scalar<float>(result);
        case Type::f64:
            return scalar<double>(result);
        case Type::f16:
            return halves<f16>(result);
        case Type::bf16:
            return halves<bf16>(result);
        case Type::f16x2:
            return result == Type::pred ? setp_pair<f16> : set_pair<f16>;
        case Type::bf16x2:
            return result == Type::pred ? setp_pair<bf16> : set_pair<bf16>;
        default:
            return nullptr;
    }
}
Handler select(Type type) {
    switch (size_of(type)) {
        case 2:
            return selp<uint16_t>;
        case 4:
            return selp<uint32_t>;
        case 8:
            return selp<uint64_t>;
        default:
            return nullptr;
    }
}
Handler move(Type type) {
    switch (size_of(type)) {
        case 1:
        case 2:
            return mov<uint16_t>;
        case 4:
            return mov<uint32_t>;
        case 8:
            return mov<uint64_t>;
        default:
            return nullptr;
    }
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
