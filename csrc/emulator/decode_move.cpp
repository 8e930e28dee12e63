#include <chrono>

#include "emulator/convert.h"
#include "emulator/decode.h"

namespace vlmk::emulator {
namespace {

void move_predicate(Warp& w, const Op& op) {
    set_predicate(w, op.d, op.count != 0 ? static_cast<uint32_t>(op.value) : w.predicates[op.a]);
}
// op.count parts of a register, from the list or to it. R is the type of the parts' registers, P their own.
template <class W, class P, class R>
void join_parts(Warp& w, const Op& op) {
    W* d = result_row<W>(w, op.d);
    const uint32_t* parts = list(w, op);
    each_lane(w.active, [&](uint32_t i) {
        W value = 0;
        for (uint32_t k = 0; k < op.count; ++k)
            value |= static_cast<W>(static_cast<P>(row<R>(w, parts[k])[i])) << (8 * sizeof(P) * k);
        d[i] = value;
    });
}
template <class W, class P, class R>
void split_parts(Warp& w, const Op& op) {
    const W* a = row<W>(w, op.a);
    const uint32_t* parts = list(w, op);
    for (uint32_t lanes = w.active; lanes != 0; lanes &= lanes - 1) {
        const auto i = static_cast<uint32_t>(__builtin_ctz(lanes));
        const W value = a[i];
        for (uint32_t k = 0; k < op.count; ++k)
            result_row<R>(w, parts[k])[i] = static_cast<R>(static_cast<P>(value >> (8 * sizeof(P) * k)));
    }
}
template <bool Join, class W>
Handler parts_handler(uint32_t bytes) {
    if constexpr (sizeof(W) > 4)
        if (bytes == 4) return Join ? join_parts<W, uint32_t, uint32_t> : split_parts<W, uint32_t, uint32_t>;
    if constexpr (sizeof(W) > 2)
        if (bytes == 2) return Join ? join_parts<W, uint16_t, uint16_t> : split_parts<W, uint16_t, uint16_t>;
    return bytes == 1 ? (Join ? join_parts<W, uint8_t, uint16_t> : split_parts<W, uint8_t, uint16_t>) : nullptr;
}
template <bool Join>
Handler parts_handler(Type type, uint32_t bytes) {
    switch (size_of(type)) {
        case 2:
            return parts_handler<Join, uint16_t>(bytes);
        case 4:
            return parts_handler<Join, uint32_t>(bytes);
        case 8:
            return parts_handler<Join, uint64_t>(bytes);
        default:
            return nullptr;
    }
}

// Time passes with the instructions of the block.
template <class T>
void clock_value(Warp& w, const Op& op) {
    T* d = result_row<T>(w, op.d);
    const auto now = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    const auto value = static_cast<T>(now >> op.value);
    each_lane(w.active, [=](uint32_t i) { d[i] = value; });
}

// Adds or takes away the window of a state space.
void move_window(Warp& w, const Op& op) {
    uint64_t* d = result_row<uint64_t>(w, op.d);
    const uint64_t* a = row<uint64_t>(w, op.a);
    const uint64_t window = op.value;
    const bool remove = op.count != 0;
    each_lane(w.active, [=](uint32_t i) { d[i] = remove ? a[i] - window : a[i] + window; });
}
// op.value is the window of the space, 0 for global memory.
void is_in_space(Warp& w, const Op& op) {
    const uint64_t* a = row<uint64_t>(w, op.a);
    uint32_t result = 0;
    for (uint32_t i = 0; i < kLanes; ++i) result |= static_cast<uint32_t>((a[i] & kWindowMask) == op.value) << i;
    set_predicate(w, op.d, result);
}

bool take_window(std::vector<std::string>& words, uint64_t& window) {
    static const std::map<std::string, uint64_t> windows = {{"global", 0},
                                                            {"const", 0},
                                                            {"shared", kSharedWindow},
                                                            {"shared::cta", kSharedWindow},
                                                            {"local", kLocalWindow},
                                                            {"param", kParameterWindow},
                                                            {"param::entry", kParameterWindow}};
    for (size_t i = 0; i < words.size(); ++i)
        if (const auto found = windows.find(words[i]); found != windows.end()) {
            window = found->second;
            words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
            return true;
        }
    return false;
}

}  // namespace

void Decoder::mov() {
    const Type type = take_type();
    const Operand &d = operand(0), &a = operand(1);
    if (type == Type::pred) {
        Op op = begin(InstructionClass::move, move_predicate);
        op.d = predicate(d);
        if (a.kind == Operand::Kind::integer) {
            op.count = 1;
            op.value = a.bits != 0 ? kAllLanes : 0;
        } else {
            op.a = predicate(a);
        }
        emit(op);
        return;
    }
    if (d.kind == Operand::Kind::vector || a.kind == Operand::Kind::vector) {
        mov_vector(type);
        return;
    }
    if (a.kind == Operand::Kind::special && (a.name.find("clock") == 0 || a.name.find("globaltimer") == 0)) {
        clocks();
        (void)type;
        return;
    }
    if (a.kind == Operand::Kind::special && a.name == "is_explicit_cluster") refuse("%is_explicit_cluster");
    Op op = begin(InstructionClass::move, handlers_.move(type));
    op.d = destination(d, type);
    op.a = source(a, type);
    emit(op);
}

void Decoder::mov_vector(Type type) {
    const Operand &d = operand(0), &a = operand(1);
    const bool join = a.kind == Operand::Kind::vector;
    const std::vector<Operand>& parts = join ? a.parts : d.parts;
    const auto count = static_cast<uint32_t>(parts.size());
    if (count == 0 || size_of(type) % count != 0) wrong("the parts do not fill the register");
    const uint32_t bytes = size_of(type) / count;
    const Type part_type = bytes == 1 ? Type::b8 : bytes == 2 ? Type::b16 : Type::b32;
    Op op = begin(InstructionClass::move, join ? parts_handler<true>(type, bytes) : parts_handler<false>(type, bytes));
    op.count = count;
    std::vector<uint32_t> places;
    for (const Operand& part : parts) places.push_back(join ? source(part, part_type) : destination(part, part_type));
    op.list = add_list(places);
    if (join)
        op.d = destination(d, type);
    else
        op.a = source(a, type);
    emit(op);
}

void Decoder::clocks() {
    const std::string& what = operand(1).name;
    const Type type = register_type(operand(0));
    Op op = begin(InstructionClass::move, size_of(type) == 8 ? clock_value<uint64_t> : clock_value<uint32_t>);
    if (what == "clock_hi" || what == "globaltimer_hi") op.value = 32;
    op.d = destination(0, type);
    emit(op);
}

void Decoder::cvta() {
    const bool to = take("to");
    uint64_t window = 0;
    if (!take_window(words_, window)) refuse("this state space");
    const Type type = take_type();
    if (size_of(type) != 8) refuse("addresses of 32 bits");
    const Operand& a = operand(1);
    Op op = begin(InstructionClass::integer, move_window);
    op.value = window;
    op.count = to ? 1 : 0;
    // Parameters have generic addresses already, wherever they are.
    if (window == kParameterWindow) op.value = 0;
    op.d = destination(0, type);
    op.a = source(a, type);
    emit(op);
}

void Decoder::isspacep() {
    uint64_t window = 0;
    if (!take_window(words_, window)) refuse("this state space");
    Op op = begin(InstructionClass::compare, is_in_space);
    op.value = window;
    op.d = predicate(0);
    op.a = source(1, Type::b64);
    emit(op);
}

void Decoder::cvt() {
    if (take("pack")) {
        cvt_pack();
        return;
    }
    static const std::map<std::string, Rounding> integer_modes = {
        {"rni", Rounding::rn}, {"rzi", Rounding::rz}, {"rmi", Rounding::rm}, {"rpi", Rounding::rp}};
    ConvertPlan plan;
    plan.rounding = take_rounding();
    bool integer_rounding = take_one(integer_modes, plan.rounding);
    plan.flush = take("ftz");
    plan.saturate = take("sat");
    plan.finite_saturation = take("satfinite");
    const bool relu = take("relu");
    plan.to = take_type();
    plan.from = take_type();
    const bool to_pair = size_of(plan.to) > 0 && (plan.to == Type::f16x2 || plan.to == Type::bf16x2 ||
                                                  plan.to == Type::e4m3x2 || plan.to == Type::e5m2x2);
    const bool from_pair =
        plan.from == Type::f16x2 || plan.from == Type::bf16x2 || plan.from == Type::e4m3x2 || plan.from == Type::e5m2x2;
    const bool float_to_float = is_float(plan.to) && is_float(plan.from);
    plan.integral = integer_rounding && float_to_float;
    if (plan.rounding == Rounding::rna && plan.to != Type::tf32) refuse("this rounding here");

    const Type to_register = register_type(operand(0)), from_register = register_type(operand(1));
    const bool constant_source = from_register == Type::none;
    plan.to_bytes = static_cast<uint8_t>(std::max(2U, size_of(to_register)));
    plan.from_bytes = static_cast<uint8_t>(std::max(2U, constant_source ? size_of(plan.from) : size_of(from_register)));
    if (to_register == Type::none) wrong("the result must be a register");
    if (plan.to_bytes < size_of(plan.to) || plan.from_bytes < size_of(plan.from)) wrong("a register is too narrow");

    Op op;
    const bool two = to_pair && !from_pair;
    const bool same_widths = plan.to_bytes == size_of(plan.to) && plan.from_bytes == size_of(plan.from);
    // Flushing changes nothing about an integer result.
    const bool plain = same_widths && !plan.saturate && !plan.finite_saturation && (!plan.flush || !is_float(plan.to));
    Handler fast = plain ? handlers_.convert(plan.to, plan.from, plan.rounding, plan.integral) : nullptr;
    if (plan.saturate && is_float(plan.from) && !is_float(plan.to) && same_widths)
        fast = handlers_.convert(plan.to, plan.from, plan.rounding, false);  // saturates anyway
    if (fast == nullptr) {
        if (from_pair != to_pair && !two) refuse("this conversion");
        fast = two ? convert_two : from_pair ? convert_pair : convert_scalar;
        op.value = pack(plan);
    }
    Op full = begin(InstructionClass::conversion, fast);
    full.value = op.value;
    full.d = destination(0, to_register);
    full.a = source(1, constant_source ? plan.from : from_register);
    if (two) full.b = source(2, register_type(operand(2)) == Type::none ? plan.from : register_type(operand(2)));
    emit(full);
    if (relu) {
        if (size_of(plan.to) == 1 || plan.to == Type::e4m3x2 || plan.to == Type::e5m2x2) refuse("'.relu' here");
        after_saturate(false, true, plan.to == Type::tf32 ? Type::f32 : plan.to, full.d);
    }
}

void Decoder::cvt_pack() {
    ConvertPlan plan;
    if (!take("sat")) refuse("cvt.pack without .sat");
    plan.saturate = true;
    plan.to = take_type();
    plan.from = take_type();
    const Type kept = take_type_or(Type::none);
    if (is_float(plan.to) || is_float(plan.from) || size_of(plan.from) != 4 || size_of(plan.to) > 2)
        refuse("this conversion");
    Op op = begin(InstructionClass::conversion, convert_pack);
    op.value = pack(plan);
    op.d = destination(0, Type::b32);
    op.a = source(1, Type::b32);
    op.b = source(2, Type::b32);
    op.c = kept != Type::none ? source(3, Type::b32) : constant(0, 4);
    emit(op);
}

}  // namespace vlmk::emulator
