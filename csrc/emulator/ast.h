// A PTX module as its text says it: names resolved, meanings not yet.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "emulator/types.h"

namespace vlmk::emulator {

struct Operand {
    enum class Kind : uint8_t {
        reg,
        integer,
        f32,
        f64,
        special,   // %tid.x; name
        variable,  // index, offset
        memory,    // [reg + offset], [variable + offset] or [offset]
        vector,    // {a, b, ...}
        pair,      // d|p
        list,      // (a, b)
        label,     // index
        function,  // name
        sink,      // _
    };
    Kind kind = Kind::sink;
    bool negated = false;  // !p
    int32_t reg = -1;
    int32_t index = -1;  // variable or label
    uint64_t bits = 0;   // constants
    int64_t offset = 0;
    std::string name;
    std::vector<Operand> parts;
};

struct Location {
    uint32_t line = 0;  // in the PTX
    uint32_t file = 0, source_line = 0;
};

struct Instruction {
    int32_t guard = -1;  // predicate register
    bool guard_negated = false;
    std::string opcode;              // "ld"
    std::vector<std::string> words;  // "global", "nc", "u32"
    std::vector<Operand> operands;
    Location location;
    std::string text() const;  // the opcode with its words
};

enum class Space : uint8_t { none, reg, param, local, shared, global, constant };

struct Initializer {
    uint64_t bits = 0;
    bool is_float = false;  // bits of a double
    int32_t variable = -1;  // address of a variable, plus bits
    bool generic = false;
};

struct Variable {
    std::string name;
    Space space = Space::none;
    Type type = Type::none;
    uint32_t align = 1;
    uint64_t bytes = 0;
    bool external = false;
    std::vector<Initializer> values;
    uint32_t line = 0;
};

struct Statement {
    int32_t label = -1;  // a label, or else an instruction
    Instruction instruction;
};

struct Function {
    std::string name;
    bool entry = false;
    bool defined = false;
    uint32_t line = 0;
    uint32_t max_threads = 1024;
    std::vector<int32_t> parameters, results;  // variables
    std::vector<Type> registers;
    std::vector<std::string> labels;
    std::vector<Statement> body;
};

struct Ast {
    std::vector<std::string> files;  // by number
    std::vector<Variable> variables;
    std::vector<Function> functions;
    const Function* find(const std::string& function_name) const;
};

Ast parse(const std::string& ptx);

}  // namespace vlmk::emulator
