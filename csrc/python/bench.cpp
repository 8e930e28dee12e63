// Bindings of the measured ceilings: each returns (operations or bytes, seconds) of all threads together.
#include <utility>

#include "bench/ceilings.h"
#include "core/error.h"
#include "python/operations.h"
#include "python/tensor.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

using Measured = std::pair<double, double>;

void check_threads(int threads) {
    require(threads >= 1, "threads is " + std::to_string(threads) + "; give at least 1");
}

template <Ceiling kind>
Measured compute(int64_t rounds, int threads) {
    require(rounds >= 1, "rounds is " + std::to_string(rounds) + "; give at least 1");
    check_threads(threads);
    const py::gil_scoped_release release;
    const CeilingRate rate = compute_ceiling(kind, rounds, threads);
    return {rate.operations, rate.seconds};
}

TensorView memory(py::handle tensor, const char* argument, int threads) {
    check_threads(threads);
    const TensorView found = view(tensor, argument);
    require(found.dtype == DType::f32 && found.ndim == 1 && found.contiguous() && found.shape[0] >= threads, argument,
            " must be a contiguous float32 vector with at least one element a thread");
    return found;
}

Measured read(py::handle from, int threads) {
    const TensorView source = memory(from, "from", threads);
    const py::gil_scoped_release release;
    const CeilingRate rate = read_ceiling(static_cast<const float*>(source.data), source.shape[0], threads);
    return {rate.operations, rate.seconds};
}

Measured copy(py::handle to, py::handle from, int threads) {
    const TensorView target = memory(to, "to", threads), source = memory(from, "from", threads);
    require(target.shape[0] == source.shape[0], "to and from must have the same length");
    const py::gil_scoped_release release;
    const CeilingRate rate = copy_ceiling(static_cast<float*>(target.data), static_cast<const float*>(source.data),
                                          source.shape[0], threads);
    return {rate.operations, rate.seconds};
}

}  // namespace

void bind_bench(py::module_& m) {
    m.def("ceiling_multiply_add", &compute<Ceiling::multiply_add>);
    m.def("ceiling_bf16_dot", &compute<Ceiling::bf16_dot>);
    m.def("ceiling_bf16_tiles", &compute<Ceiling::bf16_tiles>);
    m.def("ceiling_exp2", &compute<Ceiling::exp2>);
    m.def("ceiling_read", &read);
    m.def("ceiling_copy", &copy);
}

}  // namespace vlmk::python
