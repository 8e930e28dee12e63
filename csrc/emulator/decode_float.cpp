#include "emulator/decode.h"

namespace vlmk::emulator {
bool is_half(Type type) {
    return type == Type::f16 || type == Type::f16x2 || type == Type::bf16 || type == Type::bf16x2;
}
uint32_t half_flags(Type type, bool flush) {
    uint32_t flags = 0;
    if (type == Type::f16x2 || type == Type::bf16x2) flags |= kPackedHalves;
    if (flush && is_half(type)) flags |= kFlushHalves;
    return flags;
}

namespace {

InstructionClass class_of(Type type) { return is_half(type) ? InstructionClass::half : InstructionClass::floating; }

}  // namespace

void Decoder::float_arithmetic(FloatOp kind, Type type, int sources) {
    const Rounding rounding = take_rounding();
    const bool flush = take("ftz"), saturate = take("sat"), relu = take("relu");
    if (kind == FloatOp::div) take("approx");
    Handler handler;
    if (rounding != Rounding::none && rounding != Rounding::rn) {
        if (is_half(type)) refuse("this rounding for half precision");
        handler = rounded_handler(kind, type, rounding, flush);
    } else {
        handler = is_half(type) ? handlers_.half(kind, type) : handlers_.floating(kind, type, flush);
    }
    Op op = begin(class_of(type), handler);
    op.flags = half_flags(type, flush);
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    if (sources == 3) op.c = source(3, type);
    emit(op);
    after_saturate(saturate, relu, type, op.d);
}

void Decoder::fma() {
    const Type type = take_type();
    if (!is_float(type)) refuse("this type here");
    float_arithmetic(FloatOp::fma, type, 3);
}

void Decoder::float_extreme(Type type, bool maximum) {
    const bool flush = take("ftz"), nan = take("NaN"), xorsign = take("xorsign");
    if (xorsign) take("abs");
    if (operands() != 3) refuse("this number of operands");
    static const FloatOp kKinds[2][2][2] = {
        {{FloatOp::min, FloatOp::min_xorsign}, {FloatOp::min_nan, FloatOp::min_nan_xorsign}},
        {{FloatOp::max, FloatOp::max_xorsign}, {FloatOp::max_nan, FloatOp::max_nan_xorsign}}};
    const FloatOp kind = kKinds[maximum ? 1 : 0][nan ? 1 : 0][xorsign ? 1 : 0];
    Op op = begin(class_of(type), is_half(type) ? handlers_.half(kind, type) : handlers_.floating(kind, type, flush));
    op.flags = half_flags(type, flush);
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
}

void Decoder::approximate() {
    static const std::map<std::string, FloatOp> kinds = {
        {"rcp", FloatOp::rcp}, {"sqrt", FloatOp::sqrt}, {"rsqrt", FloatOp::rsqrt}, {"sin", FloatOp::sin},
        {"cos", FloatOp::cos}, {"lg2", FloatOp::lg2},   {"ex2", FloatOp::ex2},     {"tanh", FloatOp::tanh}};
    const FloatOp kind = kinds.at(node_->instruction.opcode);
    const bool approx = take("approx");
    const Rounding rounding = take_rounding();
    const bool flush = take("ftz");
    const Type type = take_type();
    if (!is_float(type)) refuse("this type here");
    Handler handler;
    if (rounding != Rounding::none && rounding != Rounding::rn)
        handler = rounded_handler(kind, type, rounding, flush);
    else
        handler =
            is_half(type) ? handlers_.half(kind, type) : handlers_.floating(kind, type, flush && type == Type::f32);
    Op op = begin(approx ? InstructionClass::special : class_of(type), handler);
    op.flags = half_flags(type, flush);
    op.d = destination(0, type);
    op.a = source(1, type);
    emit(op);
}

void Decoder::testp() {
    static const std::map<std::string, uint64_t> kinds = {{"finite", 0},     {"infinite", 1}, {"number", 2},
                                                          {"notanumber", 3}, {"normal", 4},   {"subnormal", 5}};
    uint64_t kind = 0;
    if (!take_one(kinds, kind)) refuse("a test without a property");
    const Type type = take_type();
    Op op = begin(InstructionClass::compare, handlers_.floating(FloatOp::testp, type, false));
    op.value = kind;
    op.d = predicate(0);
    op.a = source(1, type);
    emit(op);
}

void Decoder::copysign() {
    const Type type = take_type();
    Op op = begin(InstructionClass::floating, handlers_.floating(FloatOp::copysign, type, false));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
}

uint32_t Decoder::relations() {
    enum { less = 1, equal = 2, greater = 4, unordered = 8 };
    static const std::map<std::string, uint32_t> comparisons = {
        {"eq", equal},
        {"ne", less | greater},
        {"lt", less},
        {"le", less | equal},
        {"gt", greater},
        {"ge", greater | equal},
        {"lo", less},
        {"ls", less | equal},
        {"hi", greater},
        {"hs", greater | equal},
        {"equ", equal | unordered},
        {"neu", less | greater | unordered},
        {"ltu", less | unordered},
        {"leu", less | equal | unordered},
        {"gtu", greater | unordered},
        {"geu", greater | equal | unordered},
        {"num", less | equal | greater},
        {"nan", unordered},
    };
    uint32_t result = 0;
    if (!take_one(comparisons, result)) refuse("this comparison");
    return result;
}

void Decoder::combine_with(Op& op, size_t i) {
    static const std::map<std::string, uint32_t> combinations = {
        {"and", kCombineAnd}, {"or", kCombineOr}, {"xor", kCombineXor}};
    uint32_t combination = 0;
    if (!take_one(combinations, combination)) return;
    op.flags |= combination;
    if (operand(i).negated) op.flags |= kCombineNegated;
    op.c = predicate(i);
    if (op.c == kNoPredicate) wrong("a predicate is needed");
}

void Decoder::setp() {
    const Type type = take_type();
    const uint32_t relation = relations();
    Op op = begin(InstructionClass::compare, handlers_.compare(type, Type::pred));
    op.flags = relation * kRelations;
    if (take("ftz")) op.flags |= kFlushInputs;
    combine_with(op, 3);
    const Operand& d = operand(0);
    op.target = kNoPredicate;
    if (d.kind == Operand::Kind::pair) {
        op.d = predicate(d.parts[0]);
        op.target = predicate(d.parts[1]);
    } else {
        op.d = predicate(d);
    }
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
}

void Decoder::set() {
    const Type result = take_type(), type = take_type();
    const uint32_t relation = relations();
    Op op = begin(InstructionClass::compare, handlers_.compare(type, result));
    op.flags = relation * kRelations;
    if (take("ftz")) op.flags |= kFlushInputs;
    combine_with(op, 3);
    if (result == Type::f32) op.flags |= kResultFloat;
    op.value = result == Type::f16 || result == Type::f16x2     ? 0x3c00
               : result == Type::bf16 || result == Type::bf16x2 ? 0x3f80
                                                                : 0xffff;
    op.d = destination(0, result);
    op.a = source(1, type);
    op.b = source(2, type);
    emit(op);
}

namespace {

void select_predicate(Warp& w, const Op& op) {
    const uint32_t c = w.predicates[op.c];
    set_predicate(w, op.d, (w.predicates[op.a] & c) | (w.predicates[op.b] & ~c));
}
template <class T, class C>
void select_by_sign(Warp& w, const Op& op) {
    T* d = result_row<T>(w, op.d);
    const T *a = row<T>(w, op.a), *b = row<T>(w, op.b);
    const C* c = row<C>(w, op.c);
    each_lane(w.active, [=](uint32_t i) { d[i] = c[i] >= 0 ? a[i] : b[i]; });
}

}  // namespace

void Decoder::selp() {
    const Type type = take_type();
    if (type == Type::pred) {
        Op op = begin(InstructionClass::compare, select_predicate);
        op.d = predicate(0);
        op.a = predicate(1);
        op.b = predicate(2);
        op.c = predicate(3);
        emit(op);
        return;
    }
    Op op = begin(InstructionClass::move, handlers_.select(type));
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.target = predicate(3);
    if (op.target == kNoPredicate) wrong("a predicate is needed");
    if (operand(3).negated) op.flags |= kCombineNegated;
    emit(op);
}

void Decoder::slct() {
    take("ftz");
    const Type type = take_type(), by = take_type();
    Handler handler = nullptr;
    const bool single = by == Type::f32;
    if (!single && by != Type::s32) refuse("this type here");
    switch (size_of(type)) {
        case 2:
            handler = single ? select_by_sign<uint16_t, float> : select_by_sign<uint16_t, int32_t>;
            break;
        case 4:
            handler = single ? select_by_sign<uint32_t, float> : select_by_sign<uint32_t, int32_t>;
            break;
        case 8:
            handler = single ? select_by_sign<uint64_t, float> : select_by_sign<uint64_t, int32_t>;
            break;
        default:
            break;
    }
    Op op = begin(InstructionClass::move, handler);
    op.d = destination(0, type);
    op.a = source(1, type);
    op.b = source(2, type);
    op.c = source(3, by);
    emit(op);
}

}  // namespace vlmk::emulator
