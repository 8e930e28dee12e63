# cmake -P: PTX to a fatbin with the PTX and machine code made from it for each of TARGETS.
# Source lines stay in the PTX that ships beside it; in machine code they would take more room than the instructions, which do not depend on them.
file(READ ${PTX} text)
string(REGEX REPLACE "\n[ \t]*\\.(loc|file)[ \t][^\n]*" "" text "${text}")
string(REGEX REPLACE "\n[ \t]*\\.section[ \t]+\\.debug_[^}]*}" "" text "${text}")
file(WRITE ${FATBIN}.ptx "${text}")
execute_process(
    COMMAND ${NVCC} -fatbin -O3 --compress-mode=size "-gencode=arch=compute_80,code=[compute_80,${TARGETS}]" ${FATBIN}.ptx -o ${FATBIN}
    RESULT_VARIABLE failed)
file(REMOVE ${FATBIN}.ptx)
if(failed)
    file(REMOVE ${FATBIN})
    message(FATAL_ERROR "nvcc failed on ${PTX}")
endif()
