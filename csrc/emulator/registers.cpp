#include "emulator/registers.h"

#include <algorithm>
#include <map>
#include <unordered_set>

namespace vlmk::emulator {
namespace {

struct Roles {
    std::vector<int32_t> reads, writes;
};

void add_registers(const Operand& o, std::vector<int32_t>& to) {
    if (o.reg >= 0) to.push_back(o.reg);
    for (const Operand& part : o.parts) add_registers(part, to);
}

bool has_destination(const Instruction& i) {
    static const std::unordered_set<std::string> kWithout = {
        "bra",       "brx",    "call",  "exit",           "ret",        "trap",
        "nanosleep", "membar", "fence", "griddepcontrol", "setmaxnreg", "pmevent"};
    if (i.operands.empty() || i.operands[0].kind == Operand::Kind::memory) return false;
    if (i.opcode == "bar" || i.opcode == "barrier")
        return std::find(i.words.begin(), i.words.end(), "red") != i.words.end();
    return kWithout.count(i.opcode) == 0;
}

Roles roles(const Instruction& i) {
    Roles r;
    const bool first_is_written = has_destination(i);
    for (size_t k = 0; k < i.operands.size(); ++k)
        add_registers(i.operands[k], k == 0 && first_is_written ? r.writes : r.reads);
    if (i.guard >= 0) {
        r.reads.push_back(i.guard);
        r.reads.insert(r.reads.end(), r.writes.begin(), r.writes.end());  // the old value may stay
    }
    return r;
}

class Bits {
  public:
    explicit Bits(size_t count) : words_((count + 63) / 64, 0) {}
    void set(size_t i) { words_[i / 64] |= uint64_t{1} << (i % 64); }
    bool test(size_t i) const { return (words_[i / 64] >> (i % 64) & 1) != 0; }
    // this |= more & ~less; tells whether that changed anything
    bool add(const Bits& more, const Bits* less) {
        bool changed = false;
        for (size_t i = 0; i < words_.size(); ++i) {
            const uint64_t value = words_[i] | (less != nullptr ? more.words_[i] & ~less->words_[i] : more.words_[i]);
            changed = changed || value != words_[i];
            words_[i] = value;
        }
        return changed;
    }
    template <class Body>
    void each(const Body& body) const {
        for (size_t i = 0; i < words_.size(); ++i)
            for (uint64_t left = words_[i]; left != 0; left &= left - 1)
                body(i * 64 + static_cast<size_t>(__builtin_ctzll(left)));
    }

  private:
    std::vector<uint64_t> words_;
};

struct Life {
    int32_t first = INT32_MAX, last = -1;
    void at(int32_t position) {
        first = std::min(first, position);
        last = std::max(last, position);
    }
};

std::vector<Life> lives(const Flow& flow) {
    const auto count = static_cast<int32_t>(flow.nodes.size());
    const size_t registers = flow.registers.size();
    std::vector<char> leader(flow.nodes.size() + 1, 0);
    leader[0] = 1;
    std::vector<Roles> all;
    all.reserve(flow.nodes.size());
    for (int32_t i = 0; i < count; ++i) {
        all.push_back(roles(flow.nodes[i].instruction));
        for (int32_t target : flow.nodes[i].targets) leader[target] = 1;
        if (ends_block(flow.nodes[i].instruction)) leader[i + 1] = 1;
    }
    std::vector<int32_t> begin;
    std::vector<int32_t> block_of(flow.nodes.size());
    for (int32_t i = 0; i < count; ++i) {
        if (leader[i] != 0) begin.push_back(i);
        block_of[i] = static_cast<int32_t>(begin.size()) - 1;
    }
    const size_t blocks = begin.size();
    begin.push_back(count);
    std::vector<Bits> in(blocks, Bits(registers)), out(blocks, Bits(registers)), killed(blocks, Bits(registers));
    for (size_t b = 0; b < blocks; ++b)
        for (int32_t i = begin[b]; i < begin[b + 1]; ++i) {
            for (int32_t r : all[i].reads)
                if (!killed[b].test(r)) in[b].set(r);
            for (int32_t r : all[i].writes) killed[b].set(r);
        }
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t b = blocks; b-- > 0;) {
            const Node& last = flow.nodes[begin[b + 1] - 1];
            for (int32_t target : last.targets) changed = out[b].add(in[block_of[target]], nullptr) || changed;
            if (!never_falls_through(last.instruction) && b + 1 < blocks)
                changed = out[b].add(in[b + 1], nullptr) || changed;
            changed = in[b].add(out[b], &killed[b]) || changed;
        }
    }
    std::vector<Life> result(registers);
    for (size_t b = 0; b < blocks; ++b) {
        in[b].each([&](size_t r) { result[r].at(begin[b]); });
        out[b].each([&](size_t r) { result[r].at(begin[b + 1] - 1); });
        for (int32_t i = begin[b]; i < begin[b + 1]; ++i) {
            for (int32_t r : all[i].reads) result[r].at(i);
            for (int32_t r : all[i].writes) result[r].at(i);
        }
    }
    return result;
}

}  // namespace

uint32_t row_bytes(Type type) { return 32 * std::max(2U, size_of(type)); }

RegisterPlan plan_registers(const Flow& flow, uint32_t first_byte) {
    const std::vector<Life> life = lives(flow);
    std::vector<int32_t> by_start;
    for (size_t r = 0; r < life.size(); ++r)
        if (life[r].last >= 0) by_start.push_back(static_cast<int32_t>(r));
    std::sort(by_start.begin(), by_start.end(), [&](int32_t a, int32_t b) { return life[a].first < life[b].first; });
    RegisterPlan plan;
    plan.place.assign(life.size(), first_byte);
    plan.bytes = first_byte;
    std::map<uint32_t, std::vector<uint32_t>> free_rows;  // by size; predicates have size 0
    std::multimap<int32_t, int32_t> ends;
    uint32_t live = 0;
    for (int32_t r : by_start) {
        while (!ends.empty() && ends.begin()->first < life[r].first) {
            const int32_t over = ends.begin()->second;
            const Type type = flow.registers[over];
            free_rows[type == Type::pred ? 0 : row_bytes(type)].push_back(plan.place[over]);
            live -= type == Type::pred ? 0 : std::max(1U, size_of(type) / 4);
            ends.erase(ends.begin());
        }
        const Type type = flow.registers[r];
        const uint32_t bytes = type == Type::pred ? 0 : row_bytes(type);
        std::vector<uint32_t>& rows = free_rows[bytes];
        if (!rows.empty()) {
            plan.place[r] = rows.back();
            rows.pop_back();
        } else if (type == Type::pred) {
            plan.place[r] = plan.predicates++;
        } else {
            plan.place[r] = plan.bytes;
            plan.bytes += bytes;
        }
        live += type == Type::pred ? 0 : std::max(1U, size_of(type) / 4);
        plan.pressure = std::max(plan.pressure, live);
        ends.emplace(life[r].last, r);
    }
    return plan;
}

}  // namespace vlmk::emulator
