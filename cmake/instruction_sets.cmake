# One object library per instruction set. Every kernel source is compiled into the namespace vlmk::<name>; csrc/core/isa.h picks one at run time.
# Kernel sources must not instantiate standard library templates that are not always inlined: the linker keeps one copy of those for all sets.
function(_vlmk_add_instruction_set module name lanes bf16 tiles)
    add_library(vlmk_${name} OBJECT ${VLMK_ISA_SOURCES})
    target_link_libraries(vlmk_${name} PRIVATE vlmk_options)
    target_compile_definitions(vlmk_${name} PRIVATE VLMK_ISA=${name} VLMK_LANES=${lanes} VLMK_BF16_DOT=${bf16} VLMK_BF16_TILES=${tiles}
        $<$<BOOL:${VLMKERNELS_EMULATE_AVX512}>:VLMK_EMULATE_AVX512>)
    target_compile_options(vlmk_${name} PRIVATE -O3 -Wno-psabi $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
        $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized> ${ARGN})
    target_link_libraries(${module} PRIVATE vlmk_${name})
endfunction()

function(vlmk_add_instruction_sets module)
    set(VLMK_ISA_SOURCES ${ARGN})
    _vlmk_add_instruction_set(${module} baseline 4 0 0)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        set(avx2 -mavx2 -mfma -mf16c)
        set(avx512 ${avx2} -mavx512f -mavx512vl -mavx512bw -mavx512dq -mprefer-vector-width=512)
        set(avx512_bf16 ${avx512} -mavx512bf16)
        if(VLMKERNELS_EMULATE_AVX512)
            set(avx512 ${avx2})
            set(avx512_bf16 ${avx2})
        endif()
        _vlmk_add_instruction_set(${module} avx2 8 0 0 ${avx2})
        _vlmk_add_instruction_set(${module} avx512 16 0 0 ${avx512})
        _vlmk_add_instruction_set(${module} avx512_bf16 16 1 0 ${avx512_bf16})
        # The tile instructions are written by name: no option is needed for them.
        _vlmk_add_instruction_set(${module} amx_bf16 16 1 1 ${avx512_bf16})
    endif()
endfunction()
