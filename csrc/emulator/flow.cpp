#include "emulator/flow.h"

#include <algorithm>
#include <string>
#include <unordered_map>

#include "core/error.h"
#include "emulator/blocks.h"

namespace vlmk::emulator {
namespace {

constexpr int kMaxCallDepth = 64;
constexpr size_t kMaxNodes = 4u << 20;

uint64_t align_up(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

[[noreturn]] void refuse(const Instruction& instruction, const std::string& what) {
    throw NotImplemented("PTX line " + std::to_string(instruction.location.line) + ": " + instruction.text() + ": " +
                         what);
}

bool is_builtin(const std::string& name) { return name == "__assertfail" || name == "vprintf"; }

class Inliner {
  public:
    Inliner(const Ast& ast, Flow& flow) : ast_(ast), flow_(flow) {}

    void kernel(const Function& function) {
        std::unordered_map<int32_t, int32_t> bound;
        for (int32_t parameter : function.parameters) {
            const Variable& v = ast_.variables[parameter];
            Storage storage{&v, Space::param, align_up(flow_.parameter_bytes, v.align), -1, false};
            flow_.parameter_bytes = storage.offset + v.bytes;
            bound[parameter] = add(storage);
            flow_.parameters.push_back(bound[parameter]);
        }
        expand(function, bound, -1, 0);
        place_shared();
        for (Node& node : flow_.nodes)
            for (int32_t& target : node.targets) target = label_positions_[target];
    }

  private:
    int32_t add(const Storage& storage) {
        flow_.storage.push_back(storage);
        return static_cast<int32_t>(flow_.storage.size()) - 1;
    }

    // The storage of a variable seen from one inlined copy of a function.
    int32_t storage_of(int32_t variable, std::unordered_map<int32_t, int32_t>& bound) {
        if (auto found = bound.find(variable); found != bound.end()) return found->second;
        const Variable& v = ast_.variables[variable];
        Storage storage{&v, v.space, 0, -1, false};
        switch (v.space) {
            case Space::local:
            case Space::param:  // arguments of a call are thread-local memory
                storage.space = Space::local;
                storage.offset = align_up(flow_.local_bytes, std::max<uint64_t>(v.align, 4));
                flow_.local_bytes = storage.offset + v.bytes;
                break;
            default: {  // one per kernel, whoever uses it
                storage.module_index = variable;
                const auto [known, added] = module_storage_.try_emplace(variable, -1);
                if (added) known->second = add(storage);
                return bound[variable] = known->second;
            }
        }
        return bound[variable] = add(storage);
    }

    void place_shared() {
        uint64_t dynamic_align = 16;
        for (Storage& s : flow_.storage) {
            if (s.space != Space::shared) continue;
            s.dynamic_shared = s.variable->external || s.variable->bytes == 0;
            if (s.dynamic_shared) {
                dynamic_align = std::max<uint64_t>(dynamic_align, s.variable->align);
                continue;
            }
            s.offset = align_up(flow_.shared_bytes, s.variable->align);
            flow_.shared_bytes = s.offset + s.variable->bytes;
        }
        flow_.dynamic_shared_offset = align_up(flow_.shared_bytes, dynamic_align);
        for (Storage& s : flow_.storage)
            if (s.dynamic_shared) s.offset = flow_.dynamic_shared_offset;
    }

    void renumber(Operand& o, int32_t register_base, std::unordered_map<int32_t, int32_t>& bound) {
        if (o.reg >= 0) o.reg += register_base;
        if (o.index >= 0 && o.kind != Operand::Kind::label) o.index = storage_of(o.index, bound);
        for (Operand& part : o.parts) renumber(part, register_base, bound);
    }

    void expand(const Function& function, std::unordered_map<int32_t, int32_t>& bound, int32_t return_label,
                int depth) {
        const auto register_base = static_cast<int32_t>(flow_.registers.size());
        const auto label_base = static_cast<int32_t>(label_positions_.size());
        flow_.registers.insert(flow_.registers.end(), function.registers.begin(), function.registers.end());
        label_positions_.resize(label_positions_.size() + function.labels.size(), -1);
        std::unordered_map<int32_t, const Instruction*> tables;
        for (const Statement& s : function.body)
            if (s.label >= 0 && s.instruction.opcode == ".branchtargets") tables[s.label] = &s.instruction;
        for (const Statement& s : function.body) {
            if (s.label >= 0) {
                label_positions_[label_base + s.label] = static_cast<int32_t>(flow_.nodes.size());
                continue;
            }
            if (flow_.nodes.size() > kMaxNodes) refuse(s.instruction, "the kernel is too large");
            Node node;
            node.instruction = s.instruction;
            Instruction& i = node.instruction;
            if (i.guard >= 0) i.guard += register_base;
            for (Operand& o : i.operands) renumber(o, register_base, bound);
            if (i.opcode == "bra") {
                if (i.operands.size() != 1 || i.operands[0].kind != Operand::Kind::label)
                    refuse(i, "the target must be a label of the function");
                node.targets.push_back(label_base + i.operands[0].index);
            } else if (i.opcode == "brx") {
                if (i.operands.size() != 2 || tables.count(i.operands[1].index) == 0)
                    refuse(i, "needs a .branchtargets table");
                for (const Operand& target : tables[i.operands[1].index]->operands)
                    node.targets.push_back(label_base + target.index);
            } else if (i.opcode == "call") {
                call(std::move(node), bound, depth);
                continue;
            } else if (i.opcode == "ret" && return_label >= 0) {
                i.opcode = "bra";
                i.words = {"uni"};
                node.targets.push_back(return_label);
            }
            flow_.nodes.push_back(std::move(node));
        }
    }

    void call(Node node, std::unordered_map<int32_t, int32_t>& bound, int depth) {
        (void)bound;
        Instruction& i = node.instruction;
        const Operand *results = nullptr, *arguments = nullptr, *callee = nullptr;
        for (const Operand& o : i.operands) {
            if (o.kind == Operand::Kind::function && callee == nullptr)
                callee = &o;
            else if (o.kind == Operand::Kind::list)
                (callee == nullptr ? results : arguments) = &o;
        }
        if (callee == nullptr) refuse(i, "calls through a register are not known");
        const Function* function = ast_.find(callee->name);
        if (is_builtin(callee->name) && (function == nullptr || !function->defined)) {
            Operand none;
            none.kind = Operand::Kind::list;
            const Operand kept_results = results != nullptr ? *results : none;
            const Operand kept_arguments = arguments != nullptr ? *arguments : none;
            i.words = {callee->name};
            i.operands = {kept_results, kept_arguments};
            flow_.nodes.push_back(std::move(node));
            return;
        }
        if (function == nullptr || !function->defined) refuse(i, "'" + callee->name + "' is not defined in the module");
        if (depth >= kMaxCallDepth) refuse(i, "recursive calls are not known");
        std::unordered_map<int32_t, int32_t> inner;
        const auto bind = [&](const std::vector<int32_t>& formal, const Operand* actual) {
            const size_t given = actual != nullptr ? actual->parts.size() : 0;
            if (given != formal.size()) refuse(i, "wrong number of arguments");
            for (size_t k = 0; k < given; ++k) {
                const Operand& o = actual->parts[k];
                if (o.kind != Operand::Kind::variable) refuse(i, "arguments must be .param variables");
                inner[formal[k]] = o.index;
            }
        };
        bind(function->results, results);
        bind(function->parameters, arguments);
        // A guarded call jumps around the body.
        const auto after = static_cast<int32_t>(label_positions_.size());
        label_positions_.push_back(-1);
        if (i.guard >= 0) {
            Node skip;
            skip.instruction = i;
            skip.instruction.opcode = "bra";
            skip.instruction.words.clear();
            skip.instruction.operands.clear();
            skip.instruction.guard_negated = !i.guard_negated;
            skip.targets.push_back(after);
            flow_.nodes.push_back(std::move(skip));
        }
        expand(*function, inner, after, depth + 1);
        label_positions_[after] = static_cast<int32_t>(flow_.nodes.size());
    }

    const Ast& ast_;
    Flow& flow_;
    std::vector<int32_t> label_positions_;  // nodes
    std::unordered_map<int32_t, int32_t> module_storage_;
};

Node make_jump(int32_t target) {
    Node jump;
    jump.instruction.opcode = "bra";
    jump.instruction.words = {"uni"};
    jump.targets.push_back(target);
    jump.added = true;
    return jump;
}

// Cuts the nodes into blocks, orders the blocks, joins them again.
void order(Flow& flow) {
    std::vector<Node>& nodes = flow.nodes;
    // Falling off the end is an exit, and so is a jump to a label there.
    Node exit;
    exit.instruction.opcode = "exit";
    exit.added = true;
    if (!nodes.empty()) exit.instruction.location = nodes.back().instruction.location;
    nodes.push_back(exit);

    std::vector<char> leader(nodes.size() + 1, 0);
    leader[0] = 1;
    for (size_t i = 0; i < nodes.size(); ++i) {
        for (int32_t target : nodes[i].targets) leader[target] = 1;
        if (ends_block(nodes[i].instruction)) leader[i + 1] = 1;
    }
    std::vector<uint32_t> begin;
    std::vector<uint32_t> block_of(nodes.size());
    for (size_t i = 0; i < nodes.size(); ++i) {
        if (leader[i] != 0) begin.push_back(static_cast<uint32_t>(i));
        block_of[i] = static_cast<uint32_t>(begin.size()) - 1;
    }
    const auto count = static_cast<uint32_t>(begin.size());
    begin.push_back(static_cast<uint32_t>(nodes.size()));
    std::vector<std::vector<uint32_t>> successors(count);
    for (uint32_t b = 0; b < count; ++b) {
        const Node& last = nodes[begin[b + 1] - 1];
        for (int32_t target : last.targets) successors[b].push_back(block_of[target]);
        if (!never_falls_through(last.instruction) && b + 1 < count) successors[b].push_back(b + 1);
    }
    const std::vector<uint32_t> sequence = order_blocks(successors);

    std::vector<Node> ordered;
    ordered.reserve(nodes.size() + count);
    std::vector<int32_t> position(count, -1);
    for (size_t k = 0; k < sequence.size(); ++k) {
        const uint32_t b = sequence[k];
        position[b] = static_cast<int32_t>(ordered.size());
        const bool falls = !never_falls_through(nodes[begin[b + 1] - 1].instruction);
        for (uint32_t i = begin[b]; i < begin[b + 1]; ++i) {
            for (int32_t& target : nodes[i].targets) target = static_cast<int32_t>(block_of[target]);
            ordered.push_back(std::move(nodes[i]));
        }
        if (falls && b + 1 < count && (k + 1 == sequence.size() || sequence[k + 1] != b + 1))
            ordered.push_back(make_jump(static_cast<int32_t>(b + 1)));
    }
    for (Node& node : ordered)
        for (int32_t& target : node.targets) target = position[target];
    nodes = std::move(ordered);
}

}  // namespace

bool never_falls_through(const Instruction& i) {
    return i.guard < 0 &&
           (i.opcode == "bra" || i.opcode == "brx" || i.opcode == "ret" || i.opcode == "exit" || i.opcode == "trap");
}
bool ends_block(const Instruction& i) {
    return i.opcode == "bra" || i.opcode == "brx" || i.opcode == "ret" || i.opcode == "exit" || i.opcode == "trap";
}

Flow make_flow(const Ast& ast, const Function& kernel) {
    Flow flow;
    Inliner(ast, flow).kernel(kernel);
    order(flow);
    return flow;
}

}  // namespace vlmk::emulator
