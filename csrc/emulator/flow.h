// A kernel as one straight list of instructions: device functions inlined, blocks in the order the machine runs them.
#pragma once
#include <cstdint>
#include <vector>

#include "emulator/ast.h"

namespace vlmk::emulator {

// Where a variable lives for one kernel. Offsets are into the parameter block, the thread's local memory or the
// block's shared memory; module variables have the index of the module's variable.
struct Storage {
    const Variable* variable = nullptr;
    Space space = Space::none;
    uint64_t offset = 0;
    int32_t module_index = -1;
    bool dynamic_shared = false;
};

struct Node {
    Instruction instruction;       // registers and variables numbered for the kernel
    std::vector<int32_t> targets;  // of a branch: indices of nodes
    bool added = false;            // a jump that the order of blocks needs: not an instruction of the program
};

struct Flow {
    std::vector<Node> nodes;
    std::vector<Type> registers;
    std::vector<Storage> storage;
    std::vector<int32_t> parameters;  // storage, in order
    uint64_t parameter_bytes = 0, local_bytes = 0, shared_bytes = 0, dynamic_shared_offset = 0;
};

bool ends_block(const Instruction& instruction);  // control may go elsewhere afterwards
bool never_falls_through(const Instruction& instruction);

// The blocks are ordered so that every block comes after all blocks that can reach it without a back edge, loops in one
// piece. So what a branch's immediate post-dominator waits for lies before it: threads that always run the lowest
// position first meet again there.
Flow make_flow(const Ast& ast, const Function& kernel);

}  // namespace vlmk::emulator
