#include "emulator/barrier.h"
#include "emulator/decode.h"
#include "emulator/warp.h"

namespace vlmk::emulator {

void Decoder::warp_collective() {  // activemask
    take("b32");
    Op op = begin(InstructionClass::warp, activemask);
    op.d = destination(0, Type::b32);
    emit(op);
}

void Decoder::shfl() {
    static const std::map<std::string, Shuffle> kinds = {
        {"up", Shuffle::up}, {"down", Shuffle::down}, {"bfly", Shuffle::bfly}, {"idx", Shuffle::idx}};
    if (!take("sync")) refuse("shuffles without .sync");
    Shuffle kind{};
    if (!take_one(kinds, kind)) refuse("this shuffle");
    const Type type = take_type();
    if (size_of(type) != 4) refuse("this type here");
    Op op = begin(InstructionClass::warp, emulator::shfl);
    op.control = Control::warp_sync;
    op.value = static_cast<uint64_t>(kind);
    const Operand& d = operand(0);
    op.count = kNoPredicate;
    if (d.kind == Operand::Kind::pair) {
        op.d = destination(d.parts[0], type);
        op.count = predicate(d.parts[1]);
    } else {
        op.d = destination(d, type);
    }
    op.a = source(1, type);
    op.b = source(2, Type::b32);
    op.c = source(3, Type::b32);
    member_mask(op, operand(4));
    emit(op);
}

void Decoder::vote() {
    static const std::map<std::string, Vote> kinds = {
        {"all", Vote::all}, {"any", Vote::any}, {"uni", Vote::uni}, {"ballot", Vote::ballot}};
    if (!take("sync")) refuse("votes without .sync");
    Vote kind{};
    if (!take_one(kinds, kind)) refuse("this vote");
    take_type();
    Op op = begin(InstructionClass::warp, emulator::vote);
    op.control = Control::warp_sync;
    op.value = static_cast<uint64_t>(kind);
    op.d = kind == Vote::ballot ? destination(0, Type::b32) : predicate(0);
    op.a = predicate(1);
    if (operand(1).negated) op.flags |= kSourceNegated;
    member_mask(op, operand(2));
    emit(op);
}

void Decoder::match() {
    const bool any = take("any");
    if (!any && !take("all")) refuse("this instruction");
    if (!take("sync")) refuse("this instruction without .sync");
    const Type type = take_type();
    Op op = begin(InstructionClass::warp, any ? match_any : match_all);
    op.control = Control::warp_sync;
    op.bytes = static_cast<uint8_t>(size_of(type));
    const Operand& d = operand(0);
    op.count = kNoPredicate;
    if (d.kind == Operand::Kind::pair) {
        op.d = destination(d.parts[0], Type::b32);
        op.count = predicate(d.parts[1]);
    } else {
        op.d = destination(d, Type::b32);
    }
    op.a = source(1, type);
    member_mask(op, operand(2));
    emit(op);
}

void Decoder::redux() {
    if (!take("sync")) refuse("this instruction without .sync");
    const bool minimum = take("min"), maximum = !minimum && take("max");
    const bool absolute = take("abs"), nan = take("NaN");
    const bool add = take("add"), both = take("and"), either = take("or"), differ = take("xor");
    const Type type = take_type();
    Op op;
    if (type == Type::f32) {
        if (!minimum && !maximum) refuse("this operation");
        op = begin(InstructionClass::warp, redux_float);
        op.value = maximum ? 1 : 0;
        if (absolute) op.flags |= kAbsolute;
        if (nan) op.flags |= kPropagateNan;
    } else {
        op = begin(InstructionClass::warp, emulator::redux);
        Reduction kind{};
        if (minimum)
            kind = is_signed(type) ? Reduction::min_s : Reduction::min_u;
        else if (maximum)
            kind = is_signed(type) ? Reduction::max_s : Reduction::max_u;
        else if (add)
            kind = Reduction::add;
        else if (both)
            kind = Reduction::and_;
        else if (either)
            kind = Reduction::or_;
        else if (differ)
            kind = Reduction::xor_;
        else
            refuse("this operation");
        op.value = static_cast<uint64_t>(kind);
    }
    op.control = Control::warp_sync;
    op.d = destination(0, Type::b32);
    op.a = source(1, Type::b32);
    member_mask(op, operand(2));
    emit(op);
}

void Decoder::elect() {
    if (!take("sync")) refuse("this instruction without .sync");
    Op op = begin(InstructionClass::warp, emulator::elect);
    op.control = Control::warp_sync;
    const Operand& d = operand(0);
    if (d.kind != Operand::Kind::pair) wrong("two results are needed");
    op.value = d.parts[0].kind == Operand::Kind::reg ? 1 : 0;
    op.d = destination(d.parts[0], Type::b32);
    op.count = predicate(d.parts[1]);
    member_mask(op, operand(1));
    emit(op);
}

void Decoder::ldmatrix() {
    if (!take("sync") || !take("aligned") || !take("m8n8")) refuse("this shape");
    Op op = begin(InstructionClass::matrix_load, emulator::ldmatrix);
    op.control = Control::warp_sync;
    op.flags |= kFullMask;
    op.count = take("x4") ? 4 : take("x2") ? 2 : take("x1") ? 1 : 0;
    if (op.count == 0) refuse("this number of matrices");
    if (take("trans")) op.flags |= kTranspose;
    if (!take("b16")) refuse("this type here");
    const AddressSpace space = take_space();
    std::vector<uint32_t> places;
    for (const Operand* o : elements(operand(0), op.count)) places.push_back(destination(*o, Type::b32));
    op.list = add_list(places);
    address(operand(1), space, op);
    emit(op);
}

void Decoder::stmatrix() {
    if (!take("sync") || !take("aligned") || !take("m8n8")) refuse("this shape");
    Op op = begin(InstructionClass::matrix_load, emulator::stmatrix);
    op.control = Control::warp_sync;
    op.flags |= kFullMask;
    op.count = take("x4") ? 4 : take("x2") ? 2 : take("x1") ? 1 : 0;
    if (op.count == 0) refuse("this number of matrices");
    if (take("trans")) op.flags |= kTranspose;
    if (!take("b16")) refuse("this type here");
    const AddressSpace space = take_space();
    std::vector<uint32_t> places;
    for (const Operand* o : elements(operand(1), op.count)) places.push_back(source(*o, Type::b32));
    op.list = add_list(places);
    address(operand(0), space, op);
    emit(op);
}

void Decoder::movmatrix() {
    if (!take("sync") || !take("aligned") || !take("m8n8") || !take("trans") || !take("b16")) refuse("this shape");
    Op op = begin(InstructionClass::matrix_load, emulator::movmatrix);
    op.control = Control::warp_sync;
    op.flags |= kFullMask;
    op.d = destination(0, Type::b32);
    op.a = source(1, Type::b32);
    emit(op);
}

namespace {

struct MmaShape {
    const char* name;
    uint32_t m, k;
};
constexpr MmaShape kShapes[] = {{"m16n8k4", 16, 4},   {"m16n8k8", 16, 8}, {"m16n8k16", 16, 16},
                                {"m16n8k32", 16, 32}, {"m8n8k4", 8, 4},   {"m8n8k16", 8, 16}};

bool known_mma(Type a, uint32_t m, uint32_t k) {
    switch (a) {
        case Type::f16:
        case Type::bf16:
            return m == 16 && (k == 8 || k == 16);
        case Type::tf32:
            return m == 16 && (k == 4 || k == 8);
        case Type::s8:
        case Type::u8:
            return (m == 16 && (k == 16 || k == 32)) || (m == 8 && k == 16);
        case Type::e4m3:
        case Type::e5m2:
            return m == 16 && (k == 16 || k == 32);
        case Type::f64:
            return (m == 8 && k == 4) || (m == 16 && k <= 16);
        default:
            return false;
    }
}

}  // namespace

void Decoder::mma() {
    if (!take("sync") || !take("aligned")) refuse("this instruction without .sync.aligned");
    uint32_t m = 0, k = 0;
    for (const MmaShape& shape : kShapes)
        if (m == 0 && take(shape.name)) {
            m = shape.m;
            k = shape.k;
        }
    if (m == 0 || !take("row") || !take("col")) refuse("this shape");
    const bool saturate = take("satfinite");
    const Type d = take_type(), a = take_type(), b = take_type(), c = take_type();
    if (!known_mma(a, m, k) || d != c) refuse("this shape with these types");
    const bool same = a == b || ((a == Type::s8 || a == Type::u8) && (b == Type::s8 || b == Type::u8)) ||
                      ((a == Type::e4m3 || a == Type::e5m2) && (b == Type::e4m3 || b == Type::e5m2));
    const bool integers = a == Type::s8 || a == Type::u8;
    const bool accumulators = integers         ? d == Type::s32
                              : a == Type::f64 ? d == Type::f64
                              : d == Type::f16 ? a == Type::f16 || a == Type::e4m3 || a == Type::e5m2
                                               : d == Type::f32;
    if (!same || !accumulators) refuse("this combination of types");
    Op op = begin(InstructionClass::tensor, handlers_.mma(a, d));
    op.control = Control::warp_sync;
    op.flags |= kFullMask;
    op.count = m;
    op.value = k;
    op.a = static_cast<uint32_t>(a);
    op.b = static_cast<uint32_t>(b);
    op.c = saturate ? 1 : 0;
    if (a == Type::f64) take_rounding();
    const Type fragment = a == Type::f64 ? Type::f64 : Type::b32;
    const uint32_t per_register = a == Type::f64 ? 4 : 16 / (size_of(a));  // of k, in one register of the warp
    const uint32_t blocks = m / 8, steps = k / per_register;
    const uint32_t results = d == Type::f16 ? blocks : 2 * blocks;
    const Type result = d == Type::f16 ? Type::b32 : d;
    std::vector<uint32_t> places;
    for (const Operand* o : elements(operand(0), results)) places.push_back(destination(*o, result));
    for (const Operand* o : elements(operand(1), blocks * steps)) places.push_back(source(*o, fragment));
    for (const Operand* o : elements(operand(2), steps)) places.push_back(source(*o, fragment));
    for (const Operand* o : elements(operand(3), results)) places.push_back(source(*o, result));
    op.list = add_list(places);
    emit(op);
}

void Decoder::bar() {
    const bool plain = node_->instruction.opcode == "bar";
    if (take("cluster")) refuse("clusters");
    take("cta");
    if (take("warp")) {
        if (!take("sync")) refuse("this instruction");
        Op op = begin(InstructionClass::barrier, warp_barrier);
        op.control = Control::warp_barrier;
        member_mask(op, operand(0));
        emit(op);
        return;
    }
    Op op;
    op.instruction_class = InstructionClass::barrier;
    op.control = Control::barrier;
    op.flags = kFullMask;
    if (take("aligned") || plain) op.flags |= kAligned;
    size_t next = 0;
    if (take("red")) {
        const bool popc = take("popc");
        if (popc)
            op.flags |= kReducePopc;
        else if (take("and"))
            op.flags |= kReduceAnd;
        else if (take("or"))
            op.flags |= kReduceOr;
        else
            refuse("this reduction");
        take_type();
        op.d = popc ? destination(0, Type::b32) : predicate(0);
        op.a = source(1, Type::b32);
        next = 2;
        const Operand& vote = operand(operands() - 1);
        op.c = predicate(vote);
        if (vote.negated) op.flags |= kVoteNegated;
        if (operands() == 4) {
            op.flags |= kHasCount;
            op.b = source(2, Type::b32);
        }
        emit(op);
        return;
    }
    if (take("arrive"))
        op.flags |= kArrive;
    else if (!take("sync"))
        refuse("this barrier");
    op.a = source(next, Type::b32);
    if (has(next + 1)) {
        op.flags |= kHasCount;
        op.b = source(next + 1, Type::b32);
    }
    emit(op);
}

}  // namespace vlmk::emulator
