#include <pybind11/stl.h>

#include "core/error.h"
#include "core/isa.h"
#include "merge_attention/coalesce.h"
#include "merge_attention/plan.h"
#include "merge_attention/problem.h"
#include "python/execution.h"
#include "python/operations.h"
#include "python/reports.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

// Sizes come from `outputs` (splits, up to four row dimensions, head_dim); every other tensor is checked against them.
struct Shape {
    int rows;  // row dimensions
    int64_t size[kMaxDims];

    explicit Shape(const TensorView& outputs) : rows(outputs.ndim - 2) {
        require(rows >= 0 && rows <= kMergeDims,
                "outputs must have a dimension of splits, up to 4 of rows, and head_dim");
        std::copy(outputs.shape, outputs.shape + outputs.ndim, size);
    }

    SplitTensor tensor(const TensorView& t, const char* argument, DType dtype, bool splits, bool head_dim) const {
        const int first = splits ? 1 : 0;
        bool same = t.ndim == first + rows + (head_dim ? 1 : 0) && t.dtype == dtype;
        for (int i = 0; same && i < t.ndim; ++i) same = t.shape[i] == size[i + 1 - first];
        require(same, argument, " must be ", name(dtype), " with the sizes of outputs");
        require(!head_dim || size[rows + 1] <= 1 || t.stride[t.ndim - 1] == 1, argument,
                " must be contiguous in its last dimension");
        SplitTensor made;
        made.data = t.data;
        made.split_stride = splits ? t.stride[0] : 0;
        for (int d = 0; d < rows; ++d) made.row_stride[kMergeDims - rows + d] = t.stride[first + d];
        return made;
    }
};

void fill_sizes(MergeProblem& p, const TensorView& outputs, const Shape& shape, int threads) {
    p.dtype = outputs.dtype;
    if (p.dtype != DType::f32 && p.dtype != DType::bf16 && p.dtype != DType::f16)
        throw TypeError("outputs must be float32, bfloat16 or float16");
    p.splits = shape.size[0];
    p.head_dim = shape.size[shape.rows + 1];
    require(p.head_dim > 0, "outputs must have a last dimension that is not empty");
    std::copy(shape.size + 1, shape.size + 1 + shape.rows, p.rows + kMergeDims - shape.rows);
    p.threads = threads;
}

MergeProblem forward_problem(Execution& execution, py::handle outputs, py::handle lses, py::handle out,
                             py::handle lse) {
    MergeProblem p;
    const TensorView o = execution.view(outputs, "outputs");
    const Shape shape(o);
    fill_sizes(p, o, shape, execution.threads());
    p.outputs = shape.tensor(o, "outputs", p.dtype, true, true);
    p.lses = shape.tensor(execution.view(lses, "logsumexps"), "logsumexps", DType::f32, true, false);
    p.out = shape.tensor(execution.view(out, "out", Access::write), "out", p.dtype, false, true);
    p.lse = shape.tensor(execution.view(lse, "lse", Access::write), "lse", DType::f32, false, false);
    coalesce_rows(p);
    return p;
}

MergeProblem backward_problem(Execution& execution, py::handle grad_out, py::handle grad_lse, py::handle outputs,
                              py::handle lses, py::handle lse, py::handle grad_outputs, py::handle grad_lses) {
    MergeProblem p;
    const TensorView o = execution.view(outputs, "outputs");
    const Shape shape(o);
    fill_sizes(p, o, shape, execution.threads());
    p.outputs = shape.tensor(o, "outputs", p.dtype, true, true);
    p.lses = shape.tensor(execution.view(lses, "logsumexps"), "logsumexps", DType::f32, true, false);
    p.lse = shape.tensor(execution.view(lse, "lse"), "lse", DType::f32, false, false);
    p.grad_out = shape.tensor(execution.view(grad_out, "grad_out"), "grad_out", p.dtype, false, true);
    if (!grad_lse.is_none())
        p.grad_lse = shape.tensor(execution.view(grad_lse, "grad_lse"), "grad_lse", DType::f32, false, false);
    p.grad_outputs =
        shape.tensor(execution.view(grad_outputs, "grad_outputs", Access::write), "grad_outputs", p.dtype, true, true);
    p.grad_lses = shape.tensor(execution.view(grad_lses, "grad_logsumexps", Access::write), "grad_logsumexps",
                               DType::f32, true, false);
    coalesce_rows(p);
    return p;
}

void run_cpu(const MergeProblem& p, bool backward) {
    if (backward) VLMK_CALL_ACTIVE_ISA(merge_attention_backward, p)
    VLMK_CALL_ACTIVE_ISA(merge_attention_forward, p)
}

void run(const Execution& execution, const MergeProblem& p, bool backward) {
    const py::gil_scoped_release release;
    if (p.row_count() == 0) return;
    if (execution.on_cpu())
        run_cpu(p, backward);
    else
        execution.run(plan_merge_attention(p, backward));
}

void forward(py::handle outputs, py::handle lses, py::handle out, py::handle lse, const std::string& backend,
             int threads, uint64_t stream) {
    Execution execution(backend, threads, stream);
    run(execution, forward_problem(execution, outputs, lses, out, lse), false);
}

void backward(py::handle grad_out, py::handle grad_lse, py::handle outputs, py::handle lses, py::handle lse,
              py::handle grad_outputs, py::handle grad_lses, const std::string& backend, int threads, uint64_t stream) {
    Execution execution(backend, threads, stream);
    run(execution, backward_problem(execution, grad_out, grad_lse, outputs, lses, lse, grad_outputs, grad_lses), true);
}

}  // namespace

void bind_merge_attention(py::module_& m) {
    m.def("merge_attention_forward", &forward);
    m.def("merge_attention_backward", &backward);
    m.def("merge_attention_forward_plan", [](py::handle outputs, py::handle lses, py::handle out, py::handle lse) {
        Execution execution("cuda", 1, 0);
        return plan_as_dict(plan_merge_attention(forward_problem(execution, outputs, lses, out, lse), false));
    });
    m.def("merge_attention_backward_plan",
          [](py::handle grad_out, py::handle grad_lse, py::handle outputs, py::handle lses, py::handle lse,
             py::handle grad_outputs, py::handle grad_lses) {
              Execution execution("cuda", 1, 0);
              return plan_as_dict(plan_merge_attention(
                  backward_problem(execution, grad_out, grad_lse, outputs, lses, lse, grad_outputs, grad_lses), true));
          });
}

}  // namespace vlmk::python
