// Instruction sets the kernels are compiled for, and the choice at run time.
#pragma once
#include <string>
#include <vector>

#include "core/per_isa.h"

namespace vlmk {

enum class Isa { baseline, avx2, avx512, avx512_bf16, amx_bf16 };

const char* name(Isa isa);

// Sets that were compiled and that this machine has, slowest first.
const std::vector<Isa>& available_isas();

// The set in use: the best available one, or a lower one forced by VLMKERNELS_CPU_ISA or set_active_isa.
Isa active_isa();

// Forces a set by name; std::invalid_argument names the choices.
void set_active_isa(const std::string& name);

}  // namespace vlmk
