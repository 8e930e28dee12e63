# Device code. nvcc compiles nothing else: every csrc/<operation>/<name>.cu becomes vlmkernels/kernels/<operation>/<name>.ptx, by one compute_80
# front-end pass, and from that PTX <name>.fatbin with machine code for each architecture and <name>.json with its registers. The emulator runs the very PTX the machine code was made of.
set(VLMKERNELS_CUDA AUTO CACHE STRING "CUDA kernels: ON, OFF, or AUTO for where nvcc is found")
set_property(CACHE VLMKERNELS_CUDA PROPERTY STRINGS AUTO ON OFF)
set(VLMKERNELS_CUDA_ARCHITECTURES 80 86 89 90 120 CACHE STRING "Compute capabilities to make machine code for; others compile the PTX when it is loaded")

# The root of a toolkit of version 13 or newer: that of CUDA_HOME, of the nvcc on PATH, or of the wheels of the package index, which share the folder
# nvidia/cu13.
function(_vlmk_find_toolkit result)
    execute_process(COMMAND ${Python_EXECUTABLE} -c "import sys; print(';'.join(p + '/nvidia/cu13' for p in sys.path if p))"
        OUTPUT_VARIABLE wheels OUTPUT_STRIP_TRAILING_WHITESPACE)
    find_program(on_path nvcc PATHS ENV PATH NO_DEFAULT_PATH NO_CACHE)
    set(candidates)
    foreach(root $ENV{CUDA_HOME} $ENV{CUDA_PATH})
        list(APPEND candidates ${root}/bin/nvcc)
    endforeach()
    list(APPEND candidates ${on_path})
    foreach(root ${wheels})
        list(APPEND candidates ${root}/bin/nvcc)
    endforeach()
    foreach(nvcc ${candidates})
        if(NOT EXISTS ${nvcc})
            continue()
        endif()
        execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE version)
        # What is on PATH may be a script that stands for the real one: nvcc itself knows its root.
        execute_process(COMMAND ${nvcc} --dryrun -ptx -x cu /dev/null -o /dev/null ERROR_VARIABLE dryrun OUTPUT_QUIET)
        if(version MATCHES "release ([0-9.]+)" AND NOT CMAKE_MATCH_1 VERSION_LESS 13.0 AND dryrun MATCHES "#\\$ TOP=([^\n]+)")
            file(REAL_PATH "${CMAKE_MATCH_1}" root)
            set(${result} ${root} PARENT_SCOPE)
            return()
        endif()
    endforeach()
    set(${result} "" PARENT_SCOPE)
endfunction()

# Adds the target `kernels`, and sets VLMK_KERNEL_FOLDER to where its files are (unset without CUDA).
function(vlmk_add_cuda_kernels)
    if(NOT VLMKERNELS_CUDA)
        message(STATUS "vlmkernels: no CUDA kernels, VLMKERNELS_CUDA is ${VLMKERNELS_CUDA}")
        return()
    endif()
    _vlmk_find_toolkit(root)
    if(NOT root)
        if(VLMKERNELS_CUDA STREQUAL "AUTO")
            message(STATUS "vlmkernels: no CUDA kernels, there is no nvcc 13 in CUDA_HOME, on PATH or among the wheels")
            return()
        endif()
        message(FATAL_ERROR "VLMKERNELS_CUDA is ON and there is no nvcc 13 in CUDA_HOME, on PATH or among the wheels. Install them with\n"
            "  pip install nvidia-cuda-nvcc==13.0.* nvidia-cuda-crt==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.*")
    endif()
    # pip builds in a new temporary environment each time. The toolkit, and CMake itself, are reached through links that stay where they are, so that commands
    # do not change and a second install compiles only what did.
    set(toolkit ${CMAKE_BINARY_DIR}/cuda)
    file(CREATE_LINK ${root} ${toolkit} SYMBOLIC)
    set(nvcc ${toolkit}/bin/nvcc)
    set(cmake ${CMAKE_BINARY_DIR}/cmake)
    file(CREATE_LINK ${CMAKE_COMMAND} ${cmake} SYMBOLIC)
    message(STATUS "vlmkernels: CUDA kernels by the toolkit in ${root}")

    if(VLMKERNELS_DEV)
        set(folder ${CMAKE_SOURCE_DIR}/python/vlmkernels/kernels)
    else()
        set(folder ${CMAKE_BINARY_DIR}/kernels)
    endif()
    list(TRANSFORM VLMKERNELS_CUDA_ARCHITECTURES PREPEND "sm_" OUTPUT_VARIABLE targets)
    list(JOIN targets "," targets)

    file(GLOB sources RELATIVE ${CMAKE_SOURCE_DIR}/csrc CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/*/*.cu)
    set(built)
    foreach(source ${sources})
        string(REGEX REPLACE "\\.cu$" "" image ${source})
        set(ptx ${folder}/${image}.ptx)
        set(fatbin ${folder}/${image}.fatbin)
        set(resources ${folder}/${image}.json)
        set(depfile ${CMAKE_BINARY_DIR}/cuda-dependencies/${image}.d)
        add_custom_command(OUTPUT ${ptx}
            COMMAND ${cmake} -DNVCC=${nvcc} -DHOST_COMPILER=${CMAKE_CXX_COMPILER} -DROOT=${CMAKE_SOURCE_DIR} -DSOURCE=csrc/${source}
                -DPTX=${ptx} -DDEPFILE=${depfile} -P ${CMAKE_SOURCE_DIR}/cmake/compile_ptx.cmake
            DEPENDS ${CMAKE_SOURCE_DIR}/csrc/${source} ${CMAKE_SOURCE_DIR}/cmake/compile_ptx.cmake
            DEPFILE ${depfile} COMMENT "PTX of ${image}" VERBATIM)
        add_custom_command(OUTPUT ${fatbin} ${resources}
            COMMAND ${cmake} -DNVCC=${nvcc} -DPTX=${ptx} -DFATBIN=${fatbin} -DRESOURCES=${resources} -DTARGETS=${targets}
                -P ${CMAKE_SOURCE_DIR}/cmake/compile_fatbin.cmake
            DEPENDS ${ptx} ${CMAKE_SOURCE_DIR}/cmake/compile_fatbin.cmake COMMENT "Machine code of ${image}" VERBATIM)
        list(APPEND built ${ptx} ${fatbin} ${resources})
    endforeach()
    add_custom_target(kernels ALL DEPENDS ${built})
    set(VLMK_KERNEL_FOLDER ${folder} PARENT_SCOPE)
endfunction()
