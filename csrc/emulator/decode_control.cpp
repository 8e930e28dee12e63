#include <algorithm>
#include <cstdio>

#include "emulator/decode.h"
#include "emulator/memory.h"

namespace vlmk::emulator {
namespace {

// Text that a generic address points to, for messages.
std::string text_at(Warp& w, const Op& op, uint64_t address) {
    std::string text;
    for (const Region& region : w.block->launch->regions)
        if (address >= region.begin && address < region.begin + region.bytes) {
            const auto* at = reinterpret_cast<const char*>(address);
            const auto* end = reinterpret_cast<const char*>(region.begin + region.bytes);
            while (at < end && *at != 0) text += *at++;
            return text;
        }
    (void)op;
    return "?";
}

uint64_t local_value(const Warp& w, uint32_t lane, uint32_t offset, uint32_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, w.local + uint64_t{lane} * w.block->program->local_bytes + offset, bytes);
    return value;
}

// The list holds the local offsets of the arguments: message, file, line, function, character size.
void assert_fail(Warp& w, const Op& op) {
    const auto lane = static_cast<uint32_t>(__builtin_ctz(w.active));
    const uint32_t* arguments = list(w, op);
    report(w, op, FindingKind::trap, lane,
           "assertion failed: " + text_at(w, op, local_value(w, lane, arguments[0], 8)) + " (" +
               text_at(w, op, local_value(w, lane, arguments[1], 8)) + ":" +
               std::to_string(local_value(w, lane, arguments[2], 4)) + ")");
    w.block->stopped = true;
}

// One conversion of a format with its argument, as C's printf would write it.
std::string formatted(Warp& w, const Op& op, const std::string& format, uint64_t bits) {
    char text[256];
    const char kind = format.back();
    std::string flags;
    for (char c : format.substr(0, format.size() - 1))
        if (c != 'l' && c != 'h' && c != 'z' && c != 'j' && c != 't') flags += c;
    const bool wide = format.find('l') != std::string::npos || format.find('z') != std::string::npos || kind == 'p';
    switch (kind) {
        case 'd':
        case 'i':
            std::snprintf(text, sizeof text, (flags + "lld").c_str(),
                          wide ? static_cast<long long>(bits) : static_cast<long long>(static_cast<int32_t>(bits)));
            break;
        case 'u':
        case 'x':
        case 'X':
        case 'o':
            std::snprintf(text, sizeof text, (flags + "ll" + kind).c_str(),
                          static_cast<unsigned long long>(wide ? bits : static_cast<uint32_t>(bits)));
            break;
        case 'c':
            std::snprintf(text, sizeof text, (flags + "c").c_str(), static_cast<int>(bits));
            break;
        case 'p':
            std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(bits));
            break;
        case 's':
            return text_at(w, op, bits);
        default: {
            double value;
            std::memcpy(&value, &bits, 8);
            std::snprintf(text, sizeof text, (flags + kind).c_str(), value);
        }
    }
    return text;
}

// vprintf(format, arguments): arguments lie in memory, aligned to their size. Its result is the number of arguments.
void print(Warp& w, const Op& op) {
    const uint32_t* arguments = list(w, op);
    const uint32_t local_bytes = w.block->program->local_bytes;
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const std::string format = text_at(w, op, local_value(w, lane, arguments[0], 8));
        uint64_t buffer = local_value(w, lane, arguments[1], 8);
        std::string out;
        uint32_t count = 0;
        for (size_t i = 0; i < format.size(); ++i) {
            if (format[i] != '%' || i + 1 >= format.size()) {
                out += format[i];
                continue;
            }
            if (format[i + 1] == '%') {
                out += format[++i];
                continue;
            }
            const size_t end = format.find_first_of("diuxXocpsfFeEgGaA", i + 1);
            if (end == std::string::npos) break;
            const std::string conversion = format.substr(i, end - i + 1);
            const bool wide = std::string("fFeEgGaAsp").find(format[end]) != std::string::npos ||
                              conversion.find('l') != std::string::npos || conversion.find('z') != std::string::npos;
            const uint32_t bytes = wide ? 8 : 4;
            buffer = (buffer + bytes - 1) / bytes * bytes;
            uint64_t bits = 0;
            if ((buffer & kWindowMask) == kLocalWindow && (buffer & ~kWindowMask) + bytes <= local_bytes)
                bits = local_value(w, lane, static_cast<uint32_t>(buffer & ~kWindowMask), bytes);
            out += formatted(w, op, conversion, bits);
            buffer += bytes;
            ++count;
            i = end;
        }
        std::fputs(out.c_str(), stdout);
        if (op.count > 2) std::memcpy(w.local + uint64_t{lane} * local_bytes + arguments[2], &count, 4);
    }
    std::fflush(stdout);
}

}  // namespace

void Decoder::branch() {
    take("uni");
    looked_at_ = operands();
    Op op;
    op.instruction_class = InstructionClass::control;
    if (node_->instruction.opcode == "brx") {
        take("idx");
        op.control = Control::indexed_branch;
        op.a = source(0, Type::b32);
        std::vector<uint32_t> targets(node_->targets.begin(), node_->targets.end());
        op.count = static_cast<uint32_t>(targets.size());
        op.list = add_list(targets);
    } else {
        op.control = Control::branch;
        op.target = static_cast<uint32_t>(node_->targets[0]);
    }
    emit(op);
}

void Decoder::exit() {
    take("uni");
    Op op;
    op.instruction_class = InstructionClass::control;
    op.control = Control::exit;
    emit(op);
}

void Decoder::trap() {
    Op op;
    op.instruction_class = InstructionClass::control;
    op.control = Control::trap;
    emit(op);
}

// Device functions have been inlined; what is left are those that the runtime brings along.
void Decoder::call() {
    const bool assertion = take("__assertfail");
    if (!assertion && !take("vprintf")) refuse("this function");
    Op op = begin(InstructionClass::control, assertion ? assert_fail : print);
    const Operand &results = operand(0), &arguments = operand(1);
    if (arguments.parts.size() != (assertion ? 5 : 2)) wrong("wrong number of arguments");
    std::vector<uint32_t> offsets;
    for (const Operand* o : {&arguments, &results})
        for (const Operand& part : o->parts) {
            if (part.kind != Operand::Kind::variable) wrong("arguments must be .param variables");
            offsets.push_back(static_cast<uint32_t>(variable_value(part) & ~kWindowMask));
        }
    op.count = static_cast<uint32_t>(offsets.size());
    op.list = add_list(offsets);
    emit(op);
}

}  // namespace vlmk::emulator
