# cmake -P: one .cu to PTX, with a dependency file of the project's own headers.
get_filename_component(folder ${PTX} DIRECTORY)
get_filename_component(depfile_folder ${DEPFILE} DIRECTORY)
file(MAKE_DIRECTORY ${folder} ${depfile_folder})
# Host code is preprocessed and thrown away, so any host compiler will do. -lineinfo makes the emulator's findings name source lines; it changes no
# instruction. No --use_fast_math: kernels ask for approximate functions by name, and infinities and NaN keep their meaning.
execute_process(
    COMMAND ${NVCC} -ptx -O3 -std=c++17 -arch=compute_80 -lineinfo -Icsrc -ccbin ${HOST_COMPILER} -allow-unsupported-compiler -MMD -MF ${DEPFILE} ${SOURCE} -o ${PTX}
    WORKING_DIRECTORY ${ROOT} RESULT_VARIABLE failed)
if(failed)
    file(REMOVE ${PTX})
    message(FATAL_ERROR "nvcc failed on ${SOURCE}")
endif()

# Source names in the PTX relative to the project, so that the package does not depend on where it was built.
file(READ ${PTX} text)
string(REPLACE "\"${ROOT}/" "\"" text "${text}")
file(WRITE ${PTX} "${text}")

# Headers of the toolkit lie in a temporary folder when pip builds: gone the next time, they must not count as changed.
file(READ ${DEPFILE} text)
string(REGEX MATCHALL "[^ \\\n]*csrc/[^ \\\n]+" names "${text}")
set(dependencies)
foreach(name ${names})
    get_filename_component(path ${name} ABSOLUTE BASE_DIR ${ROOT})
    string(APPEND dependencies " ${path}")
endforeach()
file(WRITE ${DEPFILE} "${PTX}:${dependencies}\n")
