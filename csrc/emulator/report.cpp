#include <algorithm>
#include <cstdio>

#include "emulator/machine.h"

namespace vlmk::emulator {

const char* name(FindingKind kind) {
    switch (kind) {
        case FindingKind::out_of_bounds_global:
            return "out_of_bounds_global";
        case FindingKind::out_of_bounds_shared:
            return "out_of_bounds_shared";
        case FindingKind::out_of_bounds_local:
            return "out_of_bounds_local";
        case FindingKind::misaligned:
            return "misaligned";
        case FindingKind::uninitialised_shared:
            return "uninitialised_shared";
        case FindingKind::shared_race:
            return "shared_race";
        case FindingKind::async_copy_in_flight:
            return "async_copy_in_flight";
        case FindingKind::barrier_divergence:
            return "barrier_divergence";
        case FindingKind::deadlock:
            return "deadlock";
        case FindingKind::warp_mask:
            return "warp_mask";
        case FindingKind::trap:
            return "trap";
    }
    return "unknown";
}

const char* name(InstructionClass instruction_class) {
    static const char* const kNames[] = {
        "integer",   "floating",    "half",         "special",     "conversion",   "move",
        "compare",   "global_load", "global_store", "shared_load", "shared_store", "local_memory",
        "parameter", "generic",     "atomic",       "matrix_load", "tensor",       "async_copy",
        "warp",      "barrier",     "control",      "other",
    };
    static_assert(sizeof(kNames) / sizeof(kNames[0]) == kInstructionClasses);
    return kNames[static_cast<size_t>(instruction_class)];
}

void report(Warp& w, const Op& op, FindingKind kind, uint32_t lane, const std::string& message) {
    Block& block = *w.block;
    const uint64_t key = static_cast<uint64_t>(kind) << 32 | block.op_index(op);
    Finding& finding = block.findings[key];
    if (finding.occurrences++ > 0) return;
    finding.kind = kind;
    finding.message = message;
    finding.block = block.index;
    const Dim3& size = block.launch->options->block;
    const uint32_t thread = w.index * kLanes + lane;
    finding.thread = {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}

namespace {

std::string triple(const Dim3& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}
std::string grouped(uint64_t value) {
    std::string digits = std::to_string(value);
    for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
        digits.insert(static_cast<size_t>(at), 1, ',');
    return digits;
}
std::string ratio(uint64_t actual, uint64_t ideal) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f",
                  ideal == 0 ? 1.0 : static_cast<double>(actual) / static_cast<double>(ideal));
    return text;
}

void add(GlobalTraffic& to, const GlobalTraffic& from) {
    to.bytes += from.bytes;
    to.sectors += from.sectors;
    to.ideal_sectors += from.ideal_sectors;
}
void add(SharedTraffic& to, const SharedTraffic& from) {
    to.bytes += from.bytes;
    to.wavefronts += from.wavefronts;
    to.ideal_wavefronts += from.ideal_wavefronts;
}

}  // namespace

void Counters::add(const Counters& other) {
    warp_instructions += other.warp_instructions;
    thread_instructions += other.thread_instructions;
    for (size_t i = 0; i < kInstructionClasses; ++i) by_class[i] += other.by_class[i];
    tensor_flops += other.tensor_flops;
    emulator::add(global_load, other.global_load);
    emulator::add(global_store, other.global_store);
    emulator::add(global_async, other.global_async);
    emulator::add(global_atomic, other.global_atomic);
    emulator::add(shared_load, other.shared_load);
    emulator::add(shared_store, other.shared_store);
    branches += other.branches;
    divergent_branches += other.divergent_branches;
    partial_instructions += other.partial_instructions;
    barriers += other.barriers;
    blocks += other.blocks;
    warps += other.warps;
}

std::string Finding::text() const {
    std::string text = std::string(name(kind)) + " in " + kernel + ", PTX line " + std::to_string(ptx_line);
    if (source_line != 0) text += " (" + source_file + ":" + std::to_string(source_line) + ")";
    text += ", " + instruction + ": thread " + triple(thread) + " of block " + triple(block) + " " + message;
    if (occurrences > 1) text += " [" + grouped(occurrences) + " times]";
    return text;
}

std::string Report::summary() const {
    std::string text = kernel + ": " + grouped(counters.blocks) + " blocks, " + grouped(counters.warps) + " warps, " +
                       grouped(counters.warp_instructions) + " warp instructions";
    char line[160];
    std::snprintf(line, sizeof line, " in %.3f s (%.1f million a second)%s\n", seconds,
                  seconds > 0 ? static_cast<double>(counters.warp_instructions) / seconds * 1e-6 : 0.0,
                  completed ? "" : ", stopped before its end");
    text += line;
    uint64_t counted = 0;
    for (uint64_t count : counters.by_class) counted += count;
    for (size_t i = 0; i < kInstructionClasses; ++i) {
        if (counters.by_class[i] == 0) continue;
        std::snprintf(line, sizeof line, "  %-14s %16s %6.1f %%\n", name(static_cast<InstructionClass>(i)),
                      grouped(counters.by_class[i]).c_str(),
                      100.0 * static_cast<double>(counters.by_class[i]) / static_cast<double>(counted));
        text += line;
    }
    if (counters.tensor_flops > 0) text += "  tensor-core operations: " + grouped(counters.tensor_flops) + " FLOP\n";
    const auto global = [&](const char* what, const GlobalTraffic& t) {
        if (t.sectors == 0) return;
        text += std::string("  global ") + what + ": " + grouped(t.bytes) + " bytes, " + grouped(t.sectors) +
                " sectors, " + ratio(t.sectors, t.ideal_sectors) + " of the ideal\n";
    };
    global("loads", counters.global_load);
    global("stores", counters.global_store);
    global("async copies", counters.global_async);
    global("atomics", counters.global_atomic);
    const auto shared = [&](const char* what, const SharedTraffic& t) {
        if (t.wavefronts == 0) return;
        text += std::string("  shared ") + what + ": " + grouped(t.bytes) + " bytes, " + grouped(t.wavefronts) +
                " wavefronts, " + grouped(t.wavefronts - t.ideal_wavefronts) + " of them for bank conflicts\n";
    };
    shared("loads", counters.shared_load);
    shared("stores", counters.shared_store);
    if (counters.branches > 0)
        text += "  branches: " + grouped(counters.branches) + ", divergent " + grouped(counters.divergent_branches) +
                "; instructions with idle lanes: " + grouped(counters.partial_instructions) + "\n";
    if (counters.barriers > 0) text += "  barriers: " + grouped(counters.barriers) + "\n";
    text += findings.empty() ? "  no findings\n" : "  findings:\n";
    for (const Finding& finding : findings) text += "    " + finding.text() + "\n";
    return text;
}

}  // namespace vlmk::emulator
