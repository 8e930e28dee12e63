// The pybind11 module vlmkernels._native.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/error.h"
#include "core/isa.h"
#include "core/parallel.h"
#include "python/operations.h"

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
    m.doc() =
        "Kernels of vlmkernels on borrowed tensors. Use the functions of the package vlmkernels instead: they check "
        "their arguments.";

    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const vlmk::TypeError& e) {
            PyErr_SetString(PyExc_TypeError, e.what());
        } catch (const vlmk::NotImplemented& e) {
            PyErr_SetString(PyExc_NotImplementedError, e.what());
        }
    });

    m.def("available_isas", [] {
        std::vector<std::string> names;
        for (vlmk::Isa isa : vlmk::available_isas()) names.push_back(vlmk::name(isa));
        return names;
    });
    m.def("active_isa", [] { return std::string(vlmk::name(vlmk::active_isa())); });
    m.def("set_active_isa", &vlmk::set_active_isa);
    m.def("max_threads", &vlmk::max_threads);
    py::dict build;
    build["compiler"] = VLMK_COMPILER;
    build["build_type"] = VLMK_BUILD_TYPE;
#if defined(VLMK_EMULATE_AVX512)
    build["emulated_avx512"] = true;
#else
    build["emulated_avx512"] = false;
#endif
    m.attr("build") = build;

    vlmk::python::bind_attention(m);
    vlmk::python::bind_patch_embed(m);
    vlmk::python::bind_contrastive(m);
    vlmk::python::bind_bench(m);
    vlmk::python::bind_merge_attention(m);
    vlmk::python::bind_gpu(m);
    vlmk::python::bind_emulator(m);
}
