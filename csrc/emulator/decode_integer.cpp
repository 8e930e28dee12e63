#include <algorithm>

#include "emulator/decode.h"

namespace vlmk::emulator {
namespace {

constexpr InstructionClass kInteger = InstructionClass::integer;

}  // namespace

void Decoder::add_sub() {
    const std::string& opcode = node_->instruction.opcode;
    if (opcode == "addc" || opcode == "subc" || std::find(words_.begin(), words_.end(), "cc") != words_.end()) {
        carries(false);
        return;
    }
    const Type type = take_type();
    const bool subtract = opcode == "sub";
    if (is_float(type)) {
        float_arithmetic(subtract ? FloatOp::sub : FloatOp::add, type, 2);
        return;
    }
    const IntegerOp kind = take("sat") ? (subtract ? IntegerOp::sub_sat : IntegerOp::add_sat)
                                       : (subtract ? IntegerOp::sub : IntegerOp::add);
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
}

void Decoder::carries(bool multiply) {
    const Instruction& i = node_->instruction;
    if (carry_ == kNoPredicate) carry_ = static_cast<uint16_t>(plan_.predicates++);
    uint32_t flags = 0;
    if (take("cc")) flags |= kCarryOut;
    if (i.opcode.back() == 'c') flags |= kCarryIn;
    const bool high = take("hi");
    if (!high) take("lo");
    const Type type = take_type();
    const IntegerOp kind = multiply                         ? (high ? IntegerOp::mad_hi_carry : IntegerOp::mad_lo_carry)
                           : i.opcode.substr(0, 3) == "add" ? IntegerOp::add_carry
                                                            : IntegerOp::sub_carry;
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.flags = flags;
    op.target = carry_;
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = multiply ? source(3, type) : op.b;
    emit(op);
}

void Decoder::mul_mad() {
    const std::string& opcode = node_->instruction.opcode;
    if (opcode == "madc" || std::find(words_.begin(), words_.end(), "cc") != words_.end()) {
        carries(true);
        return;
    }
    const bool add = opcode == "mad";
    const Type type = take_type();
    if (is_float(type)) {
        float_arithmetic(add ? FloatOp::fma : FloatOp::mul, type, add ? 3 : 2);
        return;
    }
    IntegerOp kind = add ? IntegerOp::mad_lo : IntegerOp::mul_lo;
    Type result = type;
    if (take("hi")) {
        kind = add ? IntegerOp::mad_hi : IntegerOp::mul_hi;
        if (add && take("sat")) kind = IntegerOp::mad_hi_sat;
    } else if (take("wide")) {
        kind = add ? IntegerOp::mad_wide : IntegerOp::mul_wide;
        result = size_of(type) == 2 ? Type::b32 : Type::b64;
    } else if (!take("lo")) {
        refuse("a product without .lo, .hi or .wide");
    }
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, result);
    op.a = source(1, type);
    op.b = source(2, type);
    if (add) op.c = source(3, result);
    emit(op);
}

void Decoder::mul24_mad24() {
    const bool add = node_->instruction.opcode == "mad24";
    const bool high = take("hi");
    if (!high) take("lo");
    const Type type = take_type();
    const IntegerOp kind =
        add ? (high ? IntegerOp::mad24_hi : IntegerOp::mad24_lo) : (high ? IntegerOp::mul24_hi : IntegerOp::mul24_lo);
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    if (add) op.c = source(3, type);
    emit(op);
}

void Decoder::sad() {
    const Type type = take_type();
    Op op = begin(kInteger, handlers_.integer(IntegerOp::sad, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = source(3, type);
    emit(op);
}

void Decoder::div_rem() {
    const Type type = take_type();
    const bool divide = node_->instruction.opcode == "div";
    if (is_float(type) && divide) {
        if (take("full")) take("approx");  // both may be as exact as they like
        float_arithmetic(FloatOp::div, type, 2);
        return;
    }
    Op op = begin(kInteger, handlers_.integer(divide ? IntegerOp::div : IntegerOp::rem, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
}

void Decoder::min_max() {
    const bool maximum = node_->instruction.opcode == "max";
    const Type type = take_type();
    if (is_float(type)) {
        float_extreme(type, maximum);
        return;
    }
    const bool relu = take("relu");
    Op op = begin(kInteger, handlers_.integer(maximum ? IntegerOp::max : IntegerOp::min, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
    if (relu) {
        Op clamp = begin(kInteger, handlers_.integer(IntegerOp::relu, type));
        clamp.d = clamp.a = op.d;
        emit_extra(clamp);
    }
}

void Decoder::abs_neg() {
    const bool negate = node_->instruction.opcode == "neg";
    const Type type = take_type();
    Op op;
    if (is_float(type)) {
        const FloatOp kind = negate ? FloatOp::neg : FloatOp::abs;
        const bool flush = take("ftz");
        op = begin(is_half(type) ? InstructionClass::half : InstructionClass::floating,
                   is_half(type) ? handlers_.half(kind, type) : handlers_.floating(kind, type, flush));
        op.flags = half_flags(type, flush);
    } else {
        op = begin(kInteger, handlers_.integer(negate ? IntegerOp::neg : IntegerOp::abs, type));
    }
    op.d = destination(0, type);
    op.a = source(1, type);
    emit(op);
}

void Decoder::count_bits() {
    const std::string& opcode = node_->instruction.opcode;
    const bool shift = take("shiftamt");
    const Type type = take_type();
    const IntegerOp kind = opcode == "popc"   ? IntegerOp::popc
                           : opcode == "clz"  ? IntegerOp::clz
                           : opcode == "brev" ? IntegerOp::brev
                           : opcode == "fns"  ? IntegerOp::fns
                           : shift            ? IntegerOp::bfind_shift
                                              : IntegerOp::bfind;
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, kind == IntegerOp::brev ? type : Type::b32);
    op.a = source(1, type);
    if (kind == IntegerOp::fns) {
        op.b = source(2, Type::b32);
        op.c = source(3, Type::b32);
    }
    emit(op);
}

void Decoder::bit_field() {
    const Type type = take_type();
    if (node_->instruction.opcode == "bfe") {
        Op op = begin(kInteger, handlers_.integer(IntegerOp::bfe, type));
        op.d = destination(0, type);
        op.a = source(1, type);
        op.b = source(2, Type::b32);
        op.c = source(3, Type::b32);
        emit(op);
        return;
    }
    Op op = begin(kInteger, handlers_.integer(IntegerOp::bfi, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = source(3, Type::b32);
    op.list = add_list({source(4, Type::b32)});
    emit(op);
}

void Decoder::sized_bits() {
    const bool wrap = take("wrap");
    if (!wrap) take("clamp");
    const Type type = take_type();
    const bool mask = node_->instruction.opcode == "bmsk";
    const IntegerOp kind = mask ? (wrap ? IntegerOp::bmsk_wrap : IntegerOp::bmsk_clamp)
                                : (wrap ? IntegerOp::szext_wrap : IntegerOp::szext_clamp);
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, Type::b32);
    op.a = source(1, Type::b32);
    op.b = source(2, Type::b32);
    emit(op);
}

namespace {

// Logic on predicates; op.flags say which operands are negated. op.value is the truth table of a and b.
void predicate_logic(Warp& w, const Op& op) {
    const uint32_t a = w.predicates[op.a], b = w.predicates[op.b];
    uint32_t result = 0;
    if ((op.value & 1) != 0) result |= ~a & ~b;
    if ((op.value & 2) != 0) result |= ~a & b;
    if ((op.value & 4) != 0) result |= a & ~b;
    if ((op.value & 8) != 0) result |= a & b;
    set_predicate(w, op.d, result);
}

}  // namespace

void Decoder::logic() {
    const std::string& opcode = node_->instruction.opcode;
    const Type type = take_type();
    if (type == Type::pred) {
        Op op = begin(InstructionClass::compare, predicate_logic);
        op.d = predicate(0);
        op.a = predicate(1);
        const bool constant = opcode != "not" && operand(2).kind == Operand::Kind::integer;  // as nvcc flips flags
        op.b = opcode == "not" || constant ? op.a : predicate(2);
        if (op.a == kNoPredicate || op.b == kNoPredicate) wrong("a predicate is needed");
        op.value = opcode == "and" ? 8 : opcode == "or" ? 14 : opcode == "xor" ? 6 : opcode == "not" ? 1 : 0;
        if (op.value == 0) refuse("this on predicates");
        if (operand(1).negated) op.value = op.value >> 2 | (op.value & 3) << 2;
        if (constant)
            op.value =
                operand(2).bits != 0 ? (op.value & 10) | (op.value & 10) >> 1 : (op.value & 5) | (op.value & 5) << 1;
        else if (opcode != "not" && operand(2).negated)
            op.value = (op.value >> 1 & 5) | (op.value & 5) << 1;
        emit(op);
        return;
    }
    const IntegerOp kind = opcode == "and"   ? IntegerOp::and_
                           : opcode == "or"  ? IntegerOp::or_
                           : opcode == "xor" ? IntegerOp::xor_
                           : opcode == "not" ? IntegerOp::not_
                                             : IntegerOp::cnot;
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    if (kind != IntegerOp::not_ && kind != IntegerOp::cnot) op.b = source(2, type);
    emit(op);
}

void Decoder::lop3() {
    const Type type = take_type();
    if (size_of(type) != 4) refuse("this type here");
    Op op = begin(kInteger, handlers_.integer(IntegerOp::lop3, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = source(3, type);
    op.value = immediate(4);
    emit(op);
}

void Decoder::shift() {
    const Type type = take_type();
    const bool left = node_->instruction.opcode == "shl";
    Op op = begin(kInteger, handlers_.integer(left ? IntegerOp::shl : IntegerOp::shr, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, Type::b32);
    emit(op);
}

void Decoder::funnel_shift() {
    const bool left = take("l");
    if (!left && !take("r")) refuse("a funnel shift without direction");
    const bool wrap = take("wrap");
    if (!wrap && !take("clamp")) refuse("a funnel shift without .wrap or .clamp");
    const Type type = take_type();
    if (size_of(type) != 4) refuse("this type here");
    const IntegerOp kind = left ? (wrap ? IntegerOp::shf_l_wrap : IntegerOp::shf_l_clamp)
                                : (wrap ? IntegerOp::shf_r_wrap : IntegerOp::shf_r_clamp);
    Op op = begin(kInteger, handlers_.integer(kind, type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = source(3, Type::b32);
    emit(op);
}

void Decoder::prmt() {
    static const std::map<std::string, uint64_t> modes = {{"f4e", 1}, {"b4e", 2}, {"rc8", 3},
                                                          {"ecl", 4}, {"ecr", 5}, {"rc16", 6}};
    const Type type = take_type();
    Op op = begin(kInteger, handlers_.integer(IntegerOp::prmt, type));
    take_one(modes, op.value);
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = source(3, Type::b32);
    emit(op);
}

void Decoder::dot_product() {
    const bool four = node_->instruction.opcode == "dp4a";
    const bool high = take("hi");
    if (!high) take("lo");
    const Type a = take_type(), b = take_type();
    const IntegerOp kind = four ? IntegerOp::dp4a : high ? IntegerOp::dp2a_hi : IntegerOp::dp2a_lo;
    Op op = begin(kInteger, handlers_.integer(kind, Type::b32));
    if (is_signed(a)) op.flags |= kSignedA;
    if (is_signed(b)) op.flags |= kSignedB;
    op.d = destination(0, Type::b32);
    op.a = source(1, Type::b32);
    op.b = source(2, Type::b32);
    op.c = source(3, Type::b32);
    emit(op);
}

}  // namespace vlmk::emulator
