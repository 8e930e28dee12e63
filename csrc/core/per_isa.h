// Declaring and calling what exists once per instruction set. Apart from isa.h so that contracts stay free of the
// standard library: they are included by device code too.
#pragma once

#if defined(__x86_64__)
#define VLMK_ON_X86(...) __VA_ARGS__
#else
#define VLMK_ON_X86(...)
#endif

// Declares a kernel entry point in the namespace of every instruction set.
#define VLMK_DECLARE_PER_ISA(...)                                                                 \
    namespace baseline {                                                                          \
    __VA_ARGS__;                                                                                  \
    }                                                                                             \
    VLMK_ON_X86(                                                                                  \
        namespace avx2 { __VA_ARGS__; } namespace avx512 { __VA_ARGS__; } namespace avx512_bf16 { \
            __VA_ARGS__;                                                                          \
        } namespace amx_bf16 { __VA_ARGS__; })

// Calls the entry point of the active instruction set; needs core/isa.h.
#define VLMK_CALL_ACTIVE_ISA(function, ...)                                                            \
    switch (::vlmk::active_isa()) {                                                                    \
        VLMK_ON_X86(case ::vlmk::Isa::avx2 : return ::vlmk::avx2::function(__VA_ARGS__);               \
                    case ::vlmk::Isa::avx512 : return ::vlmk::avx512::function(__VA_ARGS__);           \
                    case ::vlmk::Isa::avx512_bf16 : return ::vlmk::avx512_bf16::function(__VA_ARGS__); \
                    case ::vlmk::Isa::amx_bf16 : return ::vlmk::amx_bf16::function(__VA_ARGS__);)      \
        default:                                                                                       \
            return ::vlmk::baseline::function(__VA_ARGS__);                                            \
    }
