# The PTX machine, a library by itself: libvlmk_emulator. What it does to the lanes of a warp (csrc/emulator/lanes) is compiled once for the
# baseline and once for AVX2 with FMA.
find_package(Threads REQUIRED)
file(GLOB VLMK_EMULATOR_SOURCES CONFIGURE_DEPENDS csrc/emulator/*.cpp)
file(GLOB VLMK_EMULATOR_LANES CONFIGURE_DEPENDS csrc/emulator/lanes/*.cpp)
# Registers are bytes read as any type. A product and a sum are two roundings unless the instruction says fma.
set(VLMK_EMULATOR_FLAGS -fno-strict-aliasing -ffp-contract=off $<$<CXX_COMPILER_ID:Clang>:-Wno-pass-failed>)
set_source_files_properties(${VLMK_EMULATOR_SOURCES} ${VLMK_EMULATOR_LANES} PROPERTIES COMPILE_OPTIONS "${VLMK_EMULATOR_FLAGS}")
# What runs once for a module need not be fast.
file(GLOB VLMK_EMULATOR_FRONT CONFIGURE_DEPENDS csrc/emulator/decode*.cpp)
foreach(name blocks flow lexer module parser registers report types)
    list(APPEND VLMK_EMULATOR_FRONT csrc/emulator/${name}.cpp)
endforeach()
set_source_files_properties(${VLMK_EMULATOR_FRONT} PROPERTIES COMPILE_OPTIONS "${VLMK_EMULATOR_FLAGS};-O1")
set_source_files_properties(csrc/emulator/rounded.cpp PROPERTIES COMPILE_OPTIONS "${VLMK_EMULATOR_FLAGS};-frounding-math;-ftrapping-math")

add_library(vlmk_emulator STATIC ${VLMK_EMULATOR_SOURCES})
target_link_libraries(vlmk_emulator PUBLIC Threads::Threads PRIVATE vlmk_options)
function(_vlmk_add_emulator_lanes name)
    add_library(vlmk_emulator_${name} OBJECT ${VLMK_EMULATOR_LANES})
    target_link_libraries(vlmk_emulator_${name} PRIVATE vlmk_options)
    target_compile_definitions(vlmk_emulator_${name} PRIVATE VLMK_EMULATOR_ISA=${name})
    target_compile_options(vlmk_emulator_${name} PRIVATE ${ARGN})
    target_sources(vlmk_emulator PRIVATE $<TARGET_OBJECTS:vlmk_emulator_${name}>)
endfunction()
set(VLMK_EMULATOR_FAST -O2 -ftree-vectorize $<$<CXX_COMPILER_ID:GNU>:-fvect-cost-model=dynamic>)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    # Few x86 machines have no AVX2: there the emulator works, that is all.
    _vlmk_add_emulator_lanes(baseline -O1)
    _vlmk_add_emulator_lanes(avx2 ${VLMK_EMULATOR_FAST} -mavx2 -mfma -mf16c -mbmi -mbmi2 -mpopcnt -mlzcnt)
else()
    _vlmk_add_emulator_lanes(baseline ${VLMK_EMULATOR_FAST})
endif()
