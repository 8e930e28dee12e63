#include "emulator/module.h"

#include <algorithm>
#include <stdexcept>

#include "core/error.h"

namespace vlmk::emulator {
namespace {

void write_initial(const Ast& ast, const Variable& v, const std::vector<uint64_t>& addresses, uint8_t* memory) {
    const uint32_t size = size_of(v.type);
    for (size_t i = 0; i < v.values.size() && (i + 1) * size <= v.bytes; ++i) {
        const Initializer& value = v.values[i];
        uint64_t bits = value.bits;
        if (value.variable >= 0) {
            const Space space = ast.variables[value.variable].space;
            if (space != Space::global && space != Space::constant)
                throw NotImplemented("PTX line " + std::to_string(v.line) + ": '" + v.name +
                                     "' holds the address of a variable that is not global");
            bits += addresses[value.variable];
        } else if (value.is_float && v.type == Type::f32) {
            double wide;
            std::memcpy(&wide, &bits, 8);
            const auto single = static_cast<float>(wide);
            bits = 0;
            std::memcpy(&bits, &single, 4);
        }
        std::memcpy(memory + i * size, &bits, size);
    }
}

}  // namespace

const Program& ModuleImpl::program(const std::string& kernel) const {
    for (size_t i = 0; i < kernels.size(); ++i)
        if (kernels[i].name == kernel) return programs[i];
    std::string known;
    for (const KernelInfo& info : kernels) known += (known.empty() ? "" : ", ") + info.name;
    throw std::invalid_argument("module '" + name + "' has no kernel '" + kernel + "'; it has " +
                                (known.empty() ? "none" : known));
}

Module::Module(std::unique_ptr<ModuleImpl> impl) : impl_(std::move(impl)) {}
Module::~Module() = default;
const std::string& Module::name() const { return impl_->name; }
const std::vector<KernelInfo>& Module::kernels() const { return impl_->kernels; }
const KernelInfo& Module::kernel(const std::string& kernel_name) const { return impl_->program(kernel_name).info; }
const std::vector<GlobalVariable>& Module::globals() const { return impl_->globals; }
const GlobalVariable* Module::global(const std::string& variable_name) const {
    for (const GlobalVariable& g : impl_->globals)
        if (g.name == variable_name) return &g;
    return nullptr;
}

std::shared_ptr<Module> load_module(std::string ptx, std::string name) {
    const Ast ast = parse(ptx);
    auto impl = std::make_unique<ModuleImpl>();
    impl->name = std::move(name);
    impl->files = ast.files;
    std::vector<uint64_t> addresses(ast.variables.size(), 0);
    for (size_t i = 0; i < ast.variables.size(); ++i) {
        const Variable& v = ast.variables[i];
        if (v.space != Space::global && v.space != Space::constant) continue;
        constexpr size_t kAlign = 256;
        impl->memory.emplace_back(new uint8_t[v.bytes + kAlign]());
        const auto raw = reinterpret_cast<uintptr_t>(impl->memory.back().get());
        addresses[i] = (raw + kAlign - 1) / kAlign * kAlign;
        impl->globals.push_back(
            {v.name, reinterpret_cast<void*>(addresses[i]), static_cast<size_t>(v.bytes), v.space == Space::global});
    }
    for (size_t i = 0; i < ast.variables.size(); ++i)
        if (addresses[i] != 0)
            write_initial(ast, ast.variables[i], addresses, reinterpret_cast<uint8_t*>(addresses[i]));
    for (const Function& function : ast.functions) {
        if (!function.entry || !function.defined) continue;
        impl->programs.push_back(decode(ast, function, addresses));
        impl->kernels.push_back(impl->programs.back().info);
    }
    return std::make_shared<Module>(std::move(impl));
}

}  // namespace vlmk::emulator
