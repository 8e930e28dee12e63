// Instruction sets the kernels are compiled for, and the choice at run time.
#pragma once
#include <string>
#include <vector>

namespace vlmk {

enum class Isa { baseline, avx2, avx512, avx512_bf16 };

const char* name(Isa isa);

// Sets that were compiled and that this machine has, slowest first.
const std::vector<Isa>& available_isas();

// The set in use: the best available one, or a lower one forced by VLMKERNELS_CPU_ISA or set_active_isa.
Isa active_isa();

// Forces a set by name; std::invalid_argument names the choices.
void set_active_isa(const std::string& name);

}  // namespace vlmk

#if defined(__x86_64__)
#define VLMK_ON_X86(...) __VA_ARGS__
#else
#define VLMK_ON_X86(...)
#endif

// Declares a kernel entry point in the namespace of every instruction set.
#define VLMK_DECLARE_PER_ISA(...) \
    namespace baseline {          \
    __VA_ARGS__;                  \
    }                             \
    VLMK_ON_X86(                  \
        namespace avx2 { __VA_ARGS__; } namespace avx512 { __VA_ARGS__; } namespace avx512_bf16 { __VA_ARGS__; })

// Calls the entry point of the active instruction set.
#define VLMK_CALL_ACTIVE_ISA(function, ...)                                                             \
    switch (::vlmk::active_isa()) {                                                                     \
        VLMK_ON_X86(case ::vlmk::Isa::avx2 : return ::vlmk::avx2::function(__VA_ARGS__);                \
                    case ::vlmk::Isa::avx512 : return ::vlmk::avx512::function(__VA_ARGS__);            \
                    case ::vlmk::Isa::avx512_bf16 : return ::vlmk::avx512_bf16::function(__VA_ARGS__);) \
        default:                                                                                        \
            return ::vlmk::baseline::function(__VA_ARGS__);                                             \
    }
