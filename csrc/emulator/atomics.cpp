// atom and red: read, combine and write at once, against blocks on other host threads too.
#include "emulator/atomics.h"

#include <algorithm>

#include "emulator/memory.h"
#include "emulator/narrow.h"
#include "emulator/shadow.h"

namespace vlmk::emulator {
namespace {

template <class T>
T as(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
uint64_t bits_of(T value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T>
uint64_t combine_integers(AtomicOp op, uint64_t old_bits, uint64_t operand) {
    const T old = as<T>(old_bits), b = as<T>(operand);
    switch (op) {
        case AtomicOp::min:
            return bits_of(std::min(old, b));
        case AtomicOp::max:
            return bits_of(std::max(old, b));
        case AtomicOp::inc:
            return bits_of(static_cast<T>(old >= b ? 0 : old + 1));
        case AtomicOp::dec:
            return bits_of(static_cast<T>(old == 0 || old > b ? b : old - 1));
        default:
            return 0;
    }
}

uint64_t combine_half(AtomicOp op, Type type, uint64_t old, uint64_t b) {
    const double x = from_float_bits(old & 0xffff, type), y = from_float_bits(b & 0xffff, type);
    double result = x + y;
    if (op == AtomicOp::min) result = x != x ? y : y != y ? x : std::min(x, y);
    if (op == AtomicOp::max) result = x != x ? y : y != y ? x : std::max(x, y);
    return to_float_bits(exact(result), type, Rounding::rn, false);
}

uint64_t combine(AtomicOp op, Type type, uint64_t old, uint64_t b, uint64_t c) {
    switch (op) {
        case AtomicOp::exch:
            return b;
        case AtomicOp::cas:
            return old == b ? c : old;
        case AtomicOp::and_:
            return old & b;
        case AtomicOp::or_:
            return old | b;
        case AtomicOp::xor_:
            return old ^ b;
        default:
            break;
    }
    switch (type) {
        case Type::f32:
            return bits_of(as<float>(old) + as<float>(b));
        case Type::f64:
            return bits_of(as<double>(old) + as<double>(b));
        case Type::f16:
        case Type::bf16:
            return combine_half(op, type, old, b);
        case Type::f16x2:
        case Type::bf16x2: {
            const Type element = type == Type::f16x2 ? Type::f16 : Type::bf16;
            return combine_half(op, element, old, b) | combine_half(op, element, old >> 16, b >> 16) << 16;
        }
        default:
            break;
    }
    if (op == AtomicOp::add) return old + b;
    switch (type) {
        case Type::s32:
            return combine_integers<int32_t>(op, old, b);
        case Type::s64:
            return combine_integers<int64_t>(op, old, b);
        case Type::u64:
            return combine_integers<uint64_t>(op, old, b);
        default:
            return combine_integers<uint32_t>(op, old, b);
    }
}

template <class U>
void run(Warp& w, const Op& op) {
    const auto atomic = static_cast<AtomicOp>(op.target & 0xff);
    const auto type = static_cast<Type>(op.target >> 8);
    // op.count results and as many operands; those of cas twice.
    const uint32_t* operands = list(w, op);
    const bool returns = op.d != 0;
    Access access;
    resolve(w, op, AccessKind::atomic, op.count * static_cast<uint32_t>(sizeof(U)), access);
    if (w.block->checks) order_strong(w, AccessKind::atomic);
    for (uint32_t left = access.lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        if ((access.in_shared >> lane & 1) != 0 && w.block->checks) {
            shadow_read(w, op, lane, access.shared[lane], op.count * sizeof(U), true);
            shadow_write(w, op, lane, access.shared[lane], op.count * sizeof(U), nullptr, true);
        }
        for (uint32_t i = 0; i < op.count; ++i) {
            const U b = row<U>(w, operands[op.count + i])[lane];
            const U c = atomic == AtomicOp::cas ? row<U>(w, operands[2 * op.count + i])[lane] : U{0};
            U* p = reinterpret_cast<U*>(access.pointer[lane]) + i;
            U old = __atomic_load_n(p, __ATOMIC_RELAXED);
            while (!__atomic_compare_exchange_n(p, &old, static_cast<U>(combine(atomic, type, old, b, c)), false,
                                                __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
            }
            if (returns) result_row<U>(w, operands[i])[lane] = old;
        }
    }
}

}  // namespace

Handler atomic_handler(Type type) {
    switch (size_of(type)) {
        case 2:
            return run<uint16_t>;
        case 4:
            return run<uint32_t>;
        case 8:
            return run<uint64_t>;
        default:
            return nullptr;
    }
}

}  // namespace vlmk::emulator
