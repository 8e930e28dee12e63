#pragma once
#include <memory>

#include "emulator/ast.h"
#include "emulator/emulator.h"
#include "emulator/machine.h"

namespace vlmk::emulator {

struct ModuleImpl {
    std::string name;
    std::vector<std::string> files;
    std::vector<KernelInfo> kernels;
    std::vector<Program> programs;  // one for each kernel
    std::vector<GlobalVariable> globals;
    std::vector<std::unique_ptr<uint8_t[]>> memory;

    const Program& program(const std::string& kernel) const;
};

// Decodes a kernel. `addresses` are those of the module's variables, by their index in the syntax tree.
Program decode(const Ast& ast, const Function& kernel, const std::vector<uint64_t>& addresses);

}  // namespace vlmk::emulator
