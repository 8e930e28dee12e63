#include <algorithm>

#include "emulator/async.h"
#include "emulator/atomics.h"
#include "emulator/decode.h"
#include "emulator/memory.h"

namespace vlmk::emulator {

AddressSpace Decoder::take_space() {
    static const std::map<std::string, AddressSpace> spaces = {
        {"global", AddressSpace::global},          {"shared", AddressSpace::shared},
        {"shared::cta", AddressSpace::shared},     {"local", AddressSpace::local},
        {"const", AddressSpace::constant},         {"param", AddressSpace::parameter},
        {"param::entry", AddressSpace::parameter}, {"param::func", AddressSpace::parameter}};
    AddressSpace space = AddressSpace::generic;
    take_one(spaces, space);
    return space;
}

void Decoder::writes_shared(AddressSpace space, uint32_t bytes) {
    if (space == AddressSpace::shared || space == AddressSpace::generic)
        while (program_.granule_shift > 0 && 1U << program_.granule_shift > bytes) --program_.granule_shift;
}

// Words about order and caches. One block sees its own stores in order, and caches are not modelled.
bool Decoder::memory_qualifiers() {
    bool strong = false;
    for (const char* word : {"volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"})
        strong = take(word) || strong;
    for (const char* word : {"weak", "cta", "gpu", "sys", "cluster", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc"})
        take(word);
    for (size_t i = 0; i < words_.size();) {
        const std::string& word = words_[i];
        const bool cache = word.rfind("L1::", 0) == 0 || word.rfind("L2::", 0) == 0;
        if (cache && word == "L2::cache_hint") looked_at_ = operands();  // the policy is the last operand
        if (cache)
            words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i));
        else
            ++i;
    }
    return strong;
}

uint32_t Decoder::vector_width() { return take("v2") ? 2 : take("v4") ? 4 : take("v8") ? 8 : 1; }

std::vector<const Operand*> Decoder::elements(const Operand& o, uint32_t width) {
    std::vector<const Operand*> found;
    if (o.kind == Operand::Kind::vector) {
        for (const Operand& part : o.parts) found.push_back(&part);
    } else {
        found.push_back(&o);
    }
    if (found.size() != width)
        wrong("the operand has " + std::to_string(found.size()) + " elements, the instruction " +
              std::to_string(width));
    return found;
}

void Decoder::ld() {
    const bool strong = memory_qualifiers();
    AddressSpace space = take_space();
    const uint32_t width = vector_width();
    const Type type = take_type();
    if (type == Type::b128 || size_of(type) * width > 32) refuse("accesses of this size");
    const auto to = elements(operand(0), width);
    Type register_of = Type::none;  // the elements have one type; what is not wanted says nothing about it
    for (const Operand* o : to)
        if (o->kind == Operand::Kind::reg) register_of = flow_.registers[o->reg];
    if (register_of == Type::none) register_of = type;
    std::vector<uint32_t> places;
    for (const Operand* o : to) places.push_back(destination(*o, register_of));
    // A register with the address of a parameter says itself where that is.
    const bool by_register = operand(1).reg >= 0;
    if (space == AddressSpace::parameter && by_register) space = AddressSpace::generic;
    Op op;
    address(operand(1), space, op);
    const bool uniform = op.space == AddressSpace::parameter && !by_register;
    const InstructionClass kind = op.space == AddressSpace::global   ? InstructionClass::global_load
                                  : op.space == AddressSpace::shared ? InstructionClass::shared_load
                                  : op.space == AddressSpace::local  ? InstructionClass::local_memory
                                  : op.space == AddressSpace::generic && space != AddressSpace::generic
                                      ? InstructionClass::parameter
                                  : op.space == AddressSpace::generic ? InstructionClass::generic
                                                                      : InstructionClass::parameter;
    Op full = begin(kind, uniform ? uniform_handler(type, register_of) : load_handler(type, register_of));
    full.a = op.a;
    full.value = op.value;
    full.flags = op.flags;
    if (strong) full.flags |= kStrong;
    full.space = op.space;
    full.count = width;
    full.list = add_list(places);
    if (uniform && full.value + uint64_t{size_of(type)} * width > flow_.parameter_bytes)
        wrong("reads past the end of the parameters");
    emit(full);
}

void Decoder::st() {
    const bool strong = memory_qualifiers();
    AddressSpace space = take_space();
    const uint32_t width = vector_width();
    const Type type = take_type();
    if (type == Type::b128 || size_of(type) * width > 32) refuse("accesses of this size");
    const auto from = elements(operand(1), width);
    Type register_of = Type::none;
    for (const Operand* o : from)
        if (o->kind == Operand::Kind::reg) register_of = flow_.registers[o->reg];
    if (register_of == Type::none) register_of = type;
    std::vector<uint32_t> places;
    for (const Operand* o : from) places.push_back(source(*o, register_of));
    if (space == AddressSpace::parameter && operand(0).reg >= 0) space = AddressSpace::generic;
    Op op;
    address(operand(0), space, op);
    const InstructionClass kind = op.space == AddressSpace::global   ? InstructionClass::global_store
                                  : op.space == AddressSpace::shared ? InstructionClass::shared_store
                                  : op.space == AddressSpace::local  ? InstructionClass::local_memory
                                                                     : InstructionClass::generic;
    Op full = begin(kind, store_handler(type, register_of));
    full.a = op.a;
    full.value = op.value;
    full.flags = op.flags;
    if (strong) full.flags |= kStrong;
    full.space = op.space;
    full.count = width;
    full.list = add_list(places);
    writes_shared(full.space, size_of(type) * width);
    emit(full);
}

void Decoder::atom() { atomic(true); }
void Decoder::red() { atomic(false); }

void Decoder::atomic(bool returns) {
    static const std::map<std::string, AtomicOp> kinds = {
        {"add", AtomicOp::add}, {"min", AtomicOp::min},   {"max", AtomicOp::max}, {"inc", AtomicOp::inc},
        {"dec", AtomicOp::dec}, {"exch", AtomicOp::exch}, {"cas", AtomicOp::cas}, {"and", AtomicOp::and_},
        {"or", AtomicOp::or_},  {"xor", AtomicOp::xor_}};
    if (take("async")) refuse("asynchronous reductions");
    memory_qualifiers();
    const AddressSpace space = take_space();
    AtomicOp kind{};
    if (!take_one(kinds, kind)) refuse("this operation");
    take("noftz");
    const uint32_t width = vector_width();
    const Type type = take_type();
    if (kind != AtomicOp::exch && kind != AtomicOp::cas && is_float(type) && kind != AtomicOp::add &&
        kind != AtomicOp::min && kind != AtomicOp::max)
        refuse("this operation on this type");
    if ((type == Type::f32 || type == Type::f64) && (kind == AtomicOp::min || kind == AtomicOp::max))
        refuse("this operation on this type");
    Op op = begin(InstructionClass::atomic, atomic_handler(type));
    const size_t first = returns ? 1 : 0;
    std::vector<uint32_t> places;
    if (returns)
        for (const Operand* o : elements(operand(0), width)) places.push_back(destination(*o, type));
    else
        places.assign(width, 0);
    for (const Operand* o : elements(operand(first + 1), width)) places.push_back(source(*o, type));
    if (kind == AtomicOp::cas)
        for (const Operand* o : elements(operand(first + 2), width)) places.push_back(source(*o, type));
    address(operand(first), space, op);
    op.d = returns ? 1 : 0;
    op.target = static_cast<uint32_t>(kind) | static_cast<uint32_t>(type) << 8;
    op.count = width;
    op.list = add_list(places);
    writes_shared(op.space, size_of(type) * width);
    emit(op);
}

namespace {
void do_nothing(Warp&, const Op&) {}
void zero64(Warp& w, const Op& op) {
    uint64_t* d = result_row<uint64_t>(w, op.d);
    each_lane(w.active, [=](uint32_t i) { d[i] = 0; });
}
}  // namespace

// Advice to caches that are not modelled.
void Decoder::hint() {
    words_.clear();
    looked_at_ = operands();
    emit(begin(InstructionClass::other, do_nothing));
}
void Decoder::createpolicy() {
    words_.clear();
    looked_at_ = operands();
    Op op = begin(InstructionClass::other, zero64);
    op.d = destination(0, Type::b64);
    emit(op);
}

void Decoder::nothing() {
    static const char* const kKnown[] = {"sc",
                                         "acq_rel",
                                         "acquire",
                                         "release",
                                         "cta",
                                         "gpu",
                                         "gl",
                                         "sys",
                                         "cluster",
                                         "proxy",
                                         "async",
                                         "alias",
                                         "wait",
                                         "launch_dependents",
                                         "u32",
                                         "sync",
                                         "aligned",
                                         "inc",
                                         "dec",
                                         "mbarrier_init",
                                         "async::generic",
                                         "relaxed",
                                         "sync_restrict::shared::cta",
                                         "sync_restrict::shared::cluster",
                                         "shared::cta",
                                         "global",
                                         "async.global"};
    for (const char* word : kKnown) take(word);
    if (node_->instruction.opcode == "brkpt") words_.clear();
    looked_at_ = operands();
    emit(begin(node_->instruction.opcode == "fence" || node_->instruction.opcode == "membar" ? InstructionClass::barrier
                                                                                             : InstructionClass::other,
               do_nothing));
}

void Decoder::cp() {
    if (!take("async")) refuse("this copy");
    if (take("commit_group")) {
        emit(begin(InstructionClass::async_copy, cp_async_commit));
        return;
    }
    if (take("wait_all")) {
        emit(begin(InstructionClass::async_copy, cp_async_wait_all));
        return;
    }
    if (take("wait_group")) {
        Op op = begin(InstructionClass::async_copy, cp_async_wait);
        op.value = immediate(0);
        emit(op);
        return;
    }
    if (take("mbarrier")) {
        if (!take("arrive")) refuse("this instruction");
        Op op = begin(InstructionClass::async_copy, cp_async_mbarrier_arrive);
        if (take("noinc")) op.flags |= kNoIncrement;
        take("b64");
        const AddressSpace space = take_space();
        address(operand(0), space, op);
        emit(op);
        return;
    }
    if (!take("ca") && !take("cg")) refuse("this copy");
    const bool policy = std::find(words_.begin(), words_.end(), "L2::cache_hint") != words_.end();
    const size_t last = operands() - (policy ? 1 : 0);
    if (!(take("shared") || take("shared::cta")) || !take("global")) refuse("this copy");
    memory_qualifiers();
    Op op = begin(InstructionClass::async_copy, cp_async);
    Op from;
    address(operand(1), AddressSpace::global, from);
    address(operand(0), AddressSpace::shared, op);
    op.b = from.a;
    if ((from.flags & kAddress64) != 0) op.flags |= kSource64;
    op.list = add_list({static_cast<uint32_t>(from.value), static_cast<uint32_t>(from.value >> 32)});
    op.bytes = static_cast<uint8_t>(immediate(2));
    if (op.bytes != 4 && op.bytes != 8 && op.bytes != 16) wrong("a copy has 4, 8 or 16 bytes");
    writes_shared(op.space, op.bytes);
    if (last > 3) {
        const Operand& o = operand(3);
        if (is_predicate(o)) {
            op.flags |= kHasIgnore;
            if (o.negated) op.flags |= kIgnoreNegated;
            op.c = predicate(o);
        } else {
            op.flags |= kHasSourceSize;
            op.c = source(o, Type::b32);
        }
    }
    emit(op);
}

void Decoder::mbarrier() {
    static const std::map<std::string, Handler> kinds = {{"init", mbarrier_init},
                                                         {"inval", mbarrier_inval},
                                                         {"arrive", mbarrier_arrive},
                                                         {"arrive_drop", mbarrier_arrive},
                                                         {"test_wait", mbarrier_test},
                                                         {"try_wait", mbarrier_test},
                                                         {"pending_count", mbarrier_pending},
                                                         {"expect_tx", mbarrier_expect_tx},
                                                         {"complete_tx", mbarrier_complete_tx}};
    const std::string kind = words_.empty() ? "" : words_[0];
    const auto found = kinds.find(kind);
    if (found == kinds.end()) refuse("this instruction");
    words_.erase(words_.begin());
    Op op = begin(InstructionClass::barrier, found->second);
    for (const char* word : {"release", "acquire", "relaxed", "cta", "cluster", "b64", "noComplete"}) take(word);
    const AddressSpace space = take_space();
    if (kind == "pending_count") {
        op.d = destination(0, Type::b32);
        op.a = source(1, Type::b64);
    } else if (kind == "test_wait" || kind == "try_wait") {
        const bool parity = take("parity");
        if (parity) op.flags |= kParity;
        op.d = predicate(0);
        address(operand(1), space, op);
        op.b = source(2, parity ? Type::b32 : Type::b64);
        if (has(3)) source(3, Type::b32);  // how long to wait
    } else if (kind == "arrive" || kind == "arrive_drop") {
        const bool state = operand(0).kind != Operand::Kind::memory;
        if (kind == "arrive_drop") op.flags |= kDrop;
        if (take("expect_tx")) op.flags |= kExpectTx;
        if (state && operand(0).kind == Operand::Kind::reg) {
            op.flags |= kReturnsState;
            op.d = destination(0, Type::b64);
        }
        const size_t at = state ? 1 : 0;
        address(operand(at), space, op);
        op.b = has(at + 1) ? source(at + 1, Type::b32) : constant(1, 4);
    } else {
        address(operand(0), space, op);
        if (kind != "inval") op.b = source(1, Type::b32);
        if (kind == "init") writes_shared(op.space, 8);
    }
    emit(op);
}

}  // namespace vlmk::emulator
