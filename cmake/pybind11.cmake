# pybind11 is header-only. Its headers are mirrored into the build directory, so that the compile commands stay the same when pip builds from a
# new temporary environment each time: a second install then recompiles only what changed.
execute_process(COMMAND ${Python_EXECUTABLE} -c "import pybind11; print(pybind11.get_include())"
    OUTPUT_VARIABLE _pybind11_source OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _pybind11_missing)
if(_pybind11_missing)
    find_package(pybind11 CONFIG REQUIRED)
    set(_pybind11_source ${pybind11_INCLUDE_DIRS})
    list(GET _pybind11_source 0 _pybind11_source)
endif()
set(VLMK_PYBIND11_INCLUDE ${CMAKE_BINARY_DIR}/include)
file(GLOB_RECURSE _pybind11_headers RELATIVE ${_pybind11_source} ${_pybind11_source}/pybind11/*.h)
foreach(header ${_pybind11_headers})
    configure_file(${_pybind11_source}/${header} ${VLMK_PYBIND11_INCLUDE}/${header} COPYONLY)
endforeach()
