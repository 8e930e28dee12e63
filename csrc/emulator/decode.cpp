#include "emulator/decode.h"

#include <algorithm>

#include "core/error.h"
#include "emulator/module.h"

namespace vlmk::emulator {
namespace {

constexpr uint32_t kScratchBytes = 512;  // the row at 0 takes what nobody wants

const std::map<std::string, Special>& special_registers() {
    static const std::map<std::string, Special> known = {
        {"tid.x", Special::tid_x},
        {"tid.y", Special::tid_y},
        {"tid.z", Special::tid_z},
        {"ntid.x", Special::ntid_x},
        {"ntid.y", Special::ntid_y},
        {"ntid.z", Special::ntid_z},
        {"ctaid.x", Special::ctaid_x},
        {"ctaid.y", Special::ctaid_y},
        {"ctaid.z", Special::ctaid_z},
        {"nctaid.x", Special::nctaid_x},
        {"nctaid.y", Special::nctaid_y},
        {"nctaid.z", Special::nctaid_z},
        // Every block is a cluster of its own.
        {"clusterid.x", Special::ctaid_x},
        {"clusterid.y", Special::ctaid_y},
        {"clusterid.z", Special::ctaid_z},
        {"nclusterid.x", Special::nctaid_x},
        {"nclusterid.y", Special::nctaid_y},
        {"nclusterid.z", Special::nctaid_z},
        {"laneid", Special::laneid},
        {"warpid", Special::warpid},
        {"nwarpid", Special::nwarpid},
        {"smid", Special::smid},
        {"nsmid", Special::nsmid},
        {"gridid", Special::gridid},
        {"lanemask_eq", Special::lanemask_eq},
        {"lanemask_le", Special::lanemask_le},
        {"lanemask_lt", Special::lanemask_lt},
        {"lanemask_ge", Special::lanemask_ge},
        {"lanemask_gt", Special::lanemask_gt},
        {"dynamic_smem_size", Special::dynamic_smem_size},
        {"total_smem_size", Special::total_smem_size},
        {"aggr_smem_size", Special::total_smem_size},
    };
    return known;
}

const std::map<std::string, uint64_t>& constant_registers() {
    static const std::map<std::string, uint64_t> known = {
        {"cluster_ctaid.x", 0},  {"cluster_ctaid.y", 0},  {"cluster_ctaid.z", 0}, {"cluster_nctaid.x", 1},
        {"cluster_nctaid.y", 1}, {"cluster_nctaid.z", 1}, {"cluster_ctarank", 0}, {"cluster_nctarank", 1},
    };
    return known;
}

double as_double(uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, 8);
    return value;
}
float as_float(uint64_t bits) {
    const auto low = static_cast<uint32_t>(bits);
    float value;
    std::memcpy(&value, &low, 4);
    return value;
}

}  // namespace

Decoder::Decoder(const Flow& flow, const std::vector<uint64_t>& addresses, Program& program)
    : flow_(flow),
      addresses_(addresses),
      program_(program),
      plan_(plan_registers(flow, kScratchBytes)),
      handlers_(handlers()) {}

void Decoder::refuse(const std::string& what) const {
    throw NotImplemented("PTX line " + std::to_string(node_->instruction.location.line) + ": " +
                         node_->instruction.text() + ": the emulator does not know " + what);
}
void Decoder::wrong(const std::string& what) const {
    throw std::invalid_argument("PTX line " + std::to_string(node_->instruction.location.line) + ": " +
                                node_->instruction.text() + ": " + what);
}

void Decoder::run() {
    op_of_node_.reserve(flow_.nodes.size() + 1);
    for (const Node& node : flow_.nodes) {
        op_of_node_.push_back(static_cast<uint32_t>(program_.ops.size()));
        node_ = &node;
        words_ = node.instruction.words;
        looked_at_ = 0;
        const auto found = methods().find(node.instruction.opcode);
        if (found == methods().end()) refuse("this instruction");
        (this->*found->second)();
        if (!words_.empty()) refuse("'." + words_[0] + "' here");
        if (looked_at_ < operands()) refuse("that many operands");
    }
    for (Op& op : program_.ops) {
        if (op.control == Control::branch) op.target = op_of_node_[op.target];
        if (op.control == Control::indexed_branch)
            for (uint32_t i = 0; i < op.count; ++i)
                program_.operands[op.list + i] = op_of_node_[program_.operands[op.list + i]];
    }
    program_.register_bytes = plan_.bytes;
    program_.predicates = plan_.predicates;
    program_.info.registers = plan_.pressure;
}

bool Decoder::take(const std::string& word) {
    const auto found = std::find(words_.begin(), words_.end(), word);
    if (found == words_.end()) return false;
    words_.erase(found);
    return true;
}
Type Decoder::take_type_or(Type otherwise) {
    for (size_t i = 0; i < words_.size(); ++i)
        if (const Type type = parse_type(words_[i]); type != Type::none) {
            words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i));
            return type;
        }
    return otherwise;
}
Type Decoder::take_type() {
    const Type type = take_type_or(Type::none);
    if (type == Type::none) refuse("an instruction without a type");
    return type;
}
Rounding Decoder::take_rounding() {
    static const std::map<std::string, Rounding> modes = {
        {"rn", Rounding::rn}, {"rz", Rounding::rz}, {"rm", Rounding::rm}, {"rp", Rounding::rp}, {"rna", Rounding::rna}};
    Rounding rounding = Rounding::none;
    take_one(modes, rounding);
    return rounding;
}

const Operand& Decoder::operand(size_t i) const {
    if (i >= operands()) wrong("too few operands");
    looked_at_ = std::max(looked_at_, i + 1);
    return node_->instruction.operands[i];
}
Type Decoder::register_type(const Operand& o) const {
    return o.kind == Operand::Kind::reg ? flow_.registers[o.reg] : Type::none;
}
bool Decoder::is_predicate(const Operand& o) const { return register_type(o) == Type::pred; }

uint32_t Decoder::constant(uint64_t bits, uint32_t bytes) {
    if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
    const uint32_t width = std::max(bytes, 2U);
    const auto [known, added] = constants_.try_emplace({bits, width}, 0);
    if (added) {
        known->second = static_cast<uint32_t>(program_.constants.size()) | kConstant;
        for (uint32_t lane = 0; lane < kLanes; ++lane)
            for (uint32_t i = 0; i < width; ++i) program_.constants.push_back(static_cast<uint8_t>(bits >> (8 * i)));
    }
    return known->second;
}

uint32_t Decoder::special(const std::string& name) {
    if (const auto fixed = constant_registers().find(name); fixed != constant_registers().end())
        return constant(fixed->second, 4);
    const auto found = special_registers().find(name);
    if (found == special_registers().end()) refuse("the register %" + name);
    const auto [known, added] = specials_.try_emplace(found->second, plan_.bytes);
    if (added) {
        plan_.bytes += 4 * kLanes;
        program_.specials.emplace_back(found->second, known->second);
    }
    return known->second;
}

uint64_t Decoder::variable_value(const Operand& o) {
    const Storage& s = flow_.storage[o.index];
    const auto offset = static_cast<uint64_t>(o.offset);
    switch (s.space) {
        case Space::shared:
            return s.offset + offset;
        case Space::local:
            // Arguments of calls are told from local variables by their declaration: they have generic addresses.
            return s.offset + offset + (s.variable->space == Space::param ? kLocalWindow : 0);
        case Space::param:
            return (s.offset + offset) | kParameterWindow;
        default:
            return addresses_[s.module_index] + offset;
    }
}

uint32_t Decoder::source(const Operand& o, Type type) {
    const uint32_t bytes = size_of(type);
    switch (o.kind) {
        case Operand::Kind::reg: {
            const Type own = flow_.registers[o.reg];
            if (own == Type::pred || row_bytes(own) != row_bytes(type))
                wrong(std::string("a register of type ") + name(own) + " where ." + name(type) + " is needed");
            return plan_.place[o.reg];
        }
        case Operand::Kind::integer:
            if (type == Type::f32 || type == Type::f64) refuse("an integer as a floating-point operand");
            return constant(o.bits, bytes);
        case Operand::Kind::f32:
            if (type == Type::f64) {
                const double wide = as_float(o.bits);
                uint64_t bits;
                std::memcpy(&bits, &wide, 8);
                return constant(bits, 8);
            }
            if (bytes != 4) refuse("this constant for ." + std::string(name(type)));
            return constant(o.bits, 4);
        case Operand::Kind::f64:
            if (type == Type::f32) {
                const auto narrow = static_cast<float>(as_double(o.bits));
                uint32_t bits;
                std::memcpy(&bits, &narrow, 4);
                return constant(bits, 4);
            }
            if (bytes != 8) refuse("this constant for ." + std::string(name(type)));
            return constant(o.bits, 8);
        case Operand::Kind::special:
            if (bytes != 4) refuse("%" + o.name + " as ." + name(type));
            return special(o.name);
        case Operand::Kind::variable:
            return constant(variable_value(o), bytes);
        default:
            wrong("an operand of the wrong kind");
    }
}
uint32_t Decoder::destination(const Operand& o, Type type) {
    if (o.kind == Operand::Kind::sink) return 0;
    if (o.kind != Operand::Kind::reg) wrong("the result must be a register");
    return source(o, type);
}
uint16_t Decoder::predicate(const Operand& o) {
    if (o.kind == Operand::Kind::sink) return kNoPredicate;
    if (!is_predicate(o)) wrong("a predicate is needed");
    return static_cast<uint16_t>(plan_.place[o.reg]);
}
uint64_t Decoder::immediate(size_t i) {
    if (operand(i).kind != Operand::Kind::integer) refuse("an operand that is no integer constant here");
    return operand(i).bits;
}
uint32_t Decoder::add_list(const std::vector<uint32_t>& operands) {
    const auto at = static_cast<uint32_t>(program_.operands.size());
    program_.operands.insert(program_.operands.end(), operands.begin(), operands.end());
    return at;
}

void Decoder::address(const Operand& o, AddressSpace space, Op& op) {
    if (o.kind != Operand::Kind::memory) wrong("an address in brackets is needed");
    op.space = space;
    if (o.reg >= 0) {
        const Type type = flow_.registers[o.reg];
        if (size_of(type) != 4 && size_of(type) != 8) wrong("an address must be in a register of 32 or 64 bits");
        op.a = plan_.place[o.reg];
        op.value = static_cast<uint64_t>(o.offset);
        if (size_of(type) == 8) op.flags |= kAddress64;
        return;
    }
    op.a = constant(0, 8);
    op.flags |= kAddress64;
    if (o.index < 0) {
        op.value = static_cast<uint64_t>(o.offset);
        return;
    }
    Operand variable = o;
    variable.kind = Operand::Kind::variable;
    op.value = variable_value(variable);
    const Space own = flow_.storage[o.index].space;
    if (own == Space::local || own == Space::param) op.value &= ~kWindowMask;
    if (own == Space::local) op.space = AddressSpace::local;
    if (own == Space::param) op.space = AddressSpace::parameter;
    if (own == Space::shared) op.space = AddressSpace::shared;
}

Op Decoder::begin(InstructionClass instruction_class, Handler handler) {
    if (handler == nullptr) refuse("this type here");
    Op op;
    op.run = handler;
    op.instruction_class = instruction_class;
    return op;
}
void Decoder::emit(Op op) {
    const Instruction& i = node_->instruction;
    if (i.guard >= 0) {
        op.guard = static_cast<uint16_t>(plan_.place[i.guard]);
        op.guard_negated = i.guard_negated;
    }
    op.added = op.added || node_->added;
    program_.ops.push_back(op);
    program_.sources.push_back({i.location.line, i.location.file, i.location.source_line, i.text()});
}
void Decoder::emit_extra(Op op) {
    op.added = true;
    emit(op);
}
void Decoder::after_saturate(bool saturate, bool relu, Type type, uint32_t d) {
    if (!saturate && !relu) return;
    const FloatOp kind = saturate ? FloatOp::saturate : FloatOp::relu;
    const bool wide = type == Type::f32 || type == Type::f64;
    Op op =
        begin(InstructionClass::floating, wide ? handlers_.floating(kind, type, false) : handlers_.half(kind, type));
    op.flags = half_flags(type, false);
    op.d = op.a = d;
    emit_extra(op);
}
void Decoder::member_mask(Op& op, const Operand& o) {
    if (o.kind == Operand::Kind::integer && static_cast<uint32_t>(o.bits) == kAllLanes) op.flags |= kFullMask;
    op.target = source(o, Type::b32);
}

const std::unordered_map<std::string, Decoder::Method>& Decoder::methods() {
    using D = Decoder;
    static const std::unordered_map<std::string, Method> table = {
        {"add", &D::add_sub},
        {"sub", &D::add_sub},
        {"addc", &D::add_sub},
        {"subc", &D::add_sub},
        {"mul", &D::mul_mad},
        {"mad", &D::mul_mad},
        {"madc", &D::mul_mad},
        {"mul24", &D::mul24_mad24},
        {"mad24", &D::mul24_mad24},
        {"fma", &D::fma},
        {"sad", &D::sad},
        {"div", &D::div_rem},
        {"rem", &D::div_rem},
        {"min", &D::min_max},
        {"max", &D::min_max},
        {"abs", &D::abs_neg},
        {"neg", &D::abs_neg},
        {"popc", &D::count_bits},
        {"clz", &D::count_bits},
        {"bfind", &D::count_bits},
        {"brev", &D::count_bits},
        {"fns", &D::count_bits},
        {"bfe", &D::bit_field},
        {"bfi", &D::bit_field},
        {"szext", &D::sized_bits},
        {"bmsk", &D::sized_bits},
        {"and", &D::logic},
        {"or", &D::logic},
        {"xor", &D::logic},
        {"not", &D::logic},
        {"cnot", &D::logic},
        {"lop3", &D::lop3},
        {"shl", &D::shift},
        {"shr", &D::shift},
        {"shf", &D::funnel_shift},
        {"prmt", &D::prmt},
        {"dp4a", &D::dot_product},
        {"dp2a", &D::dot_product},
        {"rcp", &D::approximate},
        {"sqrt", &D::approximate},
        {"rsqrt", &D::approximate},
        {"sin", &D::approximate},
        {"cos", &D::approximate},
        {"lg2", &D::approximate},
        {"ex2", &D::approximate},
        {"tanh", &D::approximate},
        {"testp", &D::testp},
        {"copysign", &D::copysign},
        {"setp", &D::setp},
        {"set", &D::set},
        {"selp", &D::selp},
        {"slct", &D::slct},
        {"mov", &D::mov},
        {"cvt", &D::cvt},
        {"cvta", &D::cvta},
        {"isspacep", &D::isspacep},
        {"ld", &D::ld},
        {"ldu", &D::ld},
        {"st", &D::st},
        {"atom", &D::atom},
        {"red", &D::red},
        {"prefetch", &D::hint},
        {"prefetchu", &D::hint},
        {"applypriority", &D::hint},
        {"discard", &D::hint},
        {"createpolicy", &D::createpolicy},
        {"bar", &D::bar},
        {"barrier", &D::bar},
        {"shfl", &D::shfl},
        {"vote", &D::vote},
        {"match", &D::match},
        {"redux", &D::redux},
        {"activemask", &D::warp_collective},
        {"elect", &D::elect},
        {"ldmatrix", &D::ldmatrix},
        {"stmatrix", &D::stmatrix},
        {"movmatrix", &D::movmatrix},
        {"mma", &D::mma},
        {"cp", &D::cp},
        {"mbarrier", &D::mbarrier},
        {"bra", &D::branch},
        {"brx", &D::branch},
        {"ret", &D::exit},
        {"exit", &D::exit},
        {"trap", &D::trap},
        {"call", &D::call},
        {"fence", &D::nothing},
        {"membar", &D::nothing},
        {"griddepcontrol", &D::nothing},
        {"nanosleep", &D::nothing},
        {"pmevent", &D::nothing},
        {"brkpt", &D::nothing},
        {"setmaxnreg", &D::nothing},
    };
    return table;
}

Program decode(const Ast& ast, const Function& kernel, const std::vector<uint64_t>& addresses) {
    const Flow flow = make_flow(ast, kernel);
    Program program;
    KernelInfo& info = program.info;
    info.name = kernel.name;
    info.max_threads = kernel.max_threads;
    info.parameter_bytes = static_cast<uint32_t>(flow.parameter_bytes);
    info.static_shared_bytes = static_cast<uint32_t>(flow.shared_bytes);
    for (int32_t index : flow.parameters) {
        const Storage& s = flow.storage[index];
        info.parameters.push_back({s.variable->name, name(s.variable->type), static_cast<uint32_t>(s.offset),
                                   static_cast<uint32_t>(s.variable->bytes), s.variable->align});
    }
    program.static_shared = static_cast<uint32_t>(flow.shared_bytes);
    program.dynamic_shared_offset = static_cast<uint32_t>(flow.dynamic_shared_offset);
    program.local_bytes = static_cast<uint32_t>((flow.local_bytes + 15) / 16 * 16);
    Decoder(flow, addresses, program).run();
    return program;
}

}  // namespace vlmk::emulator
