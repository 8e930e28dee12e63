#include "contrastive/plan.h"
#include "contrastive/problem.h"
#include "core/error.h"
#include "core/isa.h"
#include "python/execution.h"
#include "python/operations.h"
#include "python/reports.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

// What every call says about the matrix of logits.
struct Arguments {
    py::handle image, text, image_factor, text_factor, image_group, text_group;
    py::handle logit_scale, logit_bias;
    int labels;
    int64_t label_offset;
};

template <class T>
T* vector(Execution& execution, py::handle tensor, const char* argument, DType dtype, int64_t count,
          Access access = Access::read) {
    const TensorView t = execution.view(tensor, argument, access);
    if (tensor.is_none()) return nullptr;
    expect(t, argument, dtype, {count});
    require(t.contiguous(), argument, " must be contiguous");
    return static_cast<T*>(t.data);
}

const float* number(Execution& execution, py::handle tensor, const char* argument) {
    const TensorView t = execution.view(tensor, argument);
    if (tensor.is_none()) return nullptr;
    expect(t, argument, DType::f32, {});
    return static_cast<const float*>(t.data);
}

Features features(Execution& execution, const TensorView& t, const char* argument, py::handle factor,
                  py::handle group) {
    require(t.ndim == 2 && (t.shape[1] <= 1 || t.stride[1] == 1), argument, " must be (count, D), contiguous in D");
    Features f;
    f.data = t.data;
    f.count = t.shape[0];
    f.row_stride = t.stride[0];
    f.factor = vector<const float>(execution, factor, "factor", DType::f32, f.count);
    f.group = vector<const int64_t>(execution, group, "labels", DType::i64, f.count);
    return f;
}

void fill(ContrastiveProblem& p, Execution& execution, const Arguments& a) {
    const TensorView x = execution.view(a.image, "image"), y = execution.view(a.text, "text");
    if (x.dtype != DType::f32 && x.dtype != DType::bf16 && x.dtype != DType::f16)
        throw TypeError("image must be float32, bfloat16 or float16");
    require(x.dtype == y.dtype, "image and text must have one dtype");
    p.dtype = x.dtype;
    p.image = features(execution, x, "image", a.image_factor, a.image_group);
    p.text = features(execution, y, "text", a.text_factor, a.text_group);
    p.dim = x.shape[1];
    require(y.shape[1] == p.dim && p.dim > 0, "image and text must have one width");
    require((p.image.factor == nullptr) == (p.text.factor == nullptr) || p.image.count == 0 || p.text.count == 0,
            "factors must be given for both sides or none");
    require(a.labels >= 0 && a.labels <= 2, "labels must be 0, 1 or 2");
    p.labels = static_cast<Labels>(a.labels);
    require(p.labels != Labels::groups || (!a.image_group.is_none() && !a.text_group.is_none()),
            "labels by group need both group tensors");
    require(!a.logit_scale.is_none(), "logit_scale must be given");
    p.scale = number(execution, a.logit_scale, "logit_scale");
    p.bias = number(execution, a.logit_bias, "logit_bias");
    p.label_offset = a.label_offset;
    p.threads = execution.threads();
}

// (4, count): logsumexp, target, mean, positives; (3, count) for gradients.
Statistics statistics(Execution& execution, py::handle tensor, const char* argument, int64_t lines, int64_t count,
                      Access access = Access::read) {
    const TensorView t = execution.view(tensor, argument, access);
    expect(t, argument, DType::f32, {lines, count});
    require(t.contiguous(), argument, " must be contiguous");
    float* data = static_cast<float*>(t.data);
    return {data, data + count, data + 2 * count, lines == 4 ? data + 3 * count : nullptr};
}

void fill_gradients(ContrastiveProblem& p, Execution& execution, py::handle grad_image, py::handle grad_text,
                    py::handle scale_dot) {
    const TensorView gx = execution.view(grad_image, "grad_image", Access::write),
                     gy = execution.view(grad_text, "grad_text", Access::write);
    expect(gx, "grad_image", p.dtype, {p.image.count, p.dim});
    expect(gy, "grad_text", p.dtype, {p.text.count, p.dim});
    require(gx.contiguous() && gy.contiguous(), "gradients must be contiguous");
    require(!scale_dot.is_none(), "scale_dot must be given with the gradients");
    p.image.grad = gx.data;
    p.text.grad = gy.data;
    p.scale_dot = vector<float>(execution, scale_dot, "scale_dot", DType::f32, p.image.count, Access::write);
}

InfoNceProblem forward_problem(Execution& execution, const Arguments& arguments, py::handle rows, py::handle columns) {
    InfoNceProblem p;
    fill(p, execution, arguments);
    p.rows = statistics(execution, rows, "rows", 4, p.image.count, Access::write);
    p.columns = statistics(execution, columns, "columns", 4, p.text.count, Access::write);
    return p;
}

InfoNceProblem backward_problem(Execution& execution, const Arguments& arguments, py::handle rows, py::handle columns,
                                py::handle grad_rows, py::handle grad_columns, py::handle grad_image,
                                py::handle grad_text, py::handle scale_dot) {
    InfoNceProblem p;
    fill(p, execution, arguments);
    p.rows = statistics(execution, rows, "rows", 4, p.image.count);
    p.columns = statistics(execution, columns, "columns", 4, p.text.count);
    p.grad_rows = statistics(execution, grad_rows, "grad_rows", 3, p.image.count);
    p.grad_columns = statistics(execution, grad_columns, "grad_columns", 3, p.text.count);
    fill_gradients(p, execution, grad_image, grad_text, scale_dot);
    return p;
}

// Loss, gradients, or both: what is None is not computed.
SigmoidProblem sigmoid_problem(Execution& execution, const Arguments& arguments, py::handle row_loss,
                               py::handle row_weight, py::handle grad_image, py::handle grad_text, py::handle scale_dot,
                               py::handle grad_bias) {
    SigmoidProblem p;
    fill(p, execution, arguments);
    p.row_loss = vector<double>(execution, row_loss, "row_loss", DType::f64, p.image.count, Access::write);
    p.row_weight = vector<const float>(execution, row_weight, "row_weight", DType::f32, p.image.count);
    if (grad_image.is_none()) return p;
    fill_gradients(p, execution, grad_image, grad_text, scale_dot);
    require(!grad_bias.is_none(), "grad_bias must be given with the gradients");
    p.grad_bias = vector<float>(execution, grad_bias, "grad_bias", DType::f32, p.image.count, Access::write);
    return p;
}

void run_cpu_forward(const InfoNceProblem& p) { VLMK_CALL_ACTIVE_ISA(info_nce_forward, p) }
void run_cpu_backward(const InfoNceProblem& p) { VLMK_CALL_ACTIVE_ISA(info_nce_backward, p) }
void run_cpu_sigmoid(const SigmoidProblem& p) { VLMK_CALL_ACTIVE_ISA(sigmoid_loss, p) }

// On the CPU, or as launches with the workspace they need, which `new_tensor` makes; it must live until they are
// queued.
template <class Problem>
void run(Execution& execution, Problem& p, void (*cpu)(const Problem&), int64_t (*workspace)(const Problem&),
         std::vector<gpu::LaunchPlan> (*plan)(const Problem&), int64_t chunk_side, const py::object& new_tensor) {
    if (execution.on_cpu()) {
        const py::gil_scoped_release release;
        return cpu(p);
    }
    p.chunk_side = chunk_side;
    const int64_t numbers = workspace(p);
    const py::object room = new_tensor(numbers);
    const TensorView view = execution.view(room, "workspace", Access::write);
    expect(view, "workspace", DType::f32, {numbers});
    p.workspace = static_cast<float*>(view.data);
    const py::gil_scoped_release release;
    for (const gpu::LaunchPlan& launch : plan(p)) execution.run(launch);
}

// The launches, and the numbers of workspace they need.
template <class Problem>
py::tuple described(Problem& p, int64_t (*workspace)(const Problem&),
                    std::vector<gpu::LaunchPlan> (*plan)(const Problem&), int64_t chunk_side) {
    p.chunk_side = chunk_side;
    py::list plans;
    for (const gpu::LaunchPlan& launch : plan(p)) plans.append(plan_as_dict(launch));
    return py::make_tuple(plans, workspace(p));
}

void contrastive_forward(py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
                         py::handle image_group, py::handle text_group, py::handle logit_scale, int labels,
                         int64_t label_offset, py::handle rows, py::handle columns, const std::string& backend,
                         int threads, uint64_t stream, int64_t chunk_side, const py::object& new_tensor) {
    Execution execution(backend, threads, stream);
    InfoNceProblem p = forward_problem(execution,
                                       {image, text, image_factor, text_factor, image_group, text_group, logit_scale,
                                        py::none(), labels, label_offset},
                                       rows, columns);
    run(execution, p, run_cpu_forward, info_nce_forward_workspace, plan_info_nce_forward, chunk_side, new_tensor);
}

void contrastive_backward(py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
                          py::handle image_group, py::handle text_group, py::handle logit_scale, int labels,
                          int64_t label_offset, py::handle rows, py::handle columns, py::handle grad_rows,
                          py::handle grad_columns, py::handle grad_image, py::handle grad_text, py::handle scale_dot,
                          const std::string& backend, int threads, uint64_t stream, int64_t chunk_side,
                          const py::object& new_tensor) {
    Execution execution(backend, threads, stream);
    InfoNceProblem p = backward_problem(execution,
                                        {image, text, image_factor, text_factor, image_group, text_group, logit_scale,
                                         py::none(), labels, label_offset},
                                        rows, columns, grad_rows, grad_columns, grad_image, grad_text, scale_dot);
    run(execution, p, run_cpu_backward, info_nce_backward_workspace, plan_info_nce_backward, chunk_side, new_tensor);
}

void sigmoid_forward(py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
                     py::handle image_group, py::handle text_group, py::handle logit_scale, py::handle logit_bias,
                     int labels, int64_t label_offset, py::handle row_loss, py::handle row_weight,
                     py::handle grad_image, py::handle grad_text, py::handle scale_dot, py::handle grad_bias,
                     const std::string& backend, int threads, uint64_t stream, int64_t chunk_side,
                     const py::object& new_tensor) {
    Execution execution(backend, threads, stream);
    SigmoidProblem p = sigmoid_problem(execution,
                                       {image, text, image_factor, text_factor, image_group, text_group, logit_scale,
                                        logit_bias, labels, label_offset},
                                       row_loss, row_weight, grad_image, grad_text, scale_dot, grad_bias);
    run(execution, p, run_cpu_sigmoid, sigmoid_workspace, plan_sigmoid, chunk_side, new_tensor);
}

py::tuple forward_plan(py::handle image, py::handle text, py::handle logit_scale, py::handle rows, py::handle columns,
                       int64_t chunk_side) {
    Execution execution("cuda", 1, 0);
    const py::none none;
    InfoNceProblem p =
        forward_problem(execution, {image, text, none, none, none, none, logit_scale, none, 1, 0}, rows, columns);
    return described(p, info_nce_forward_workspace, plan_info_nce_forward, chunk_side);
}

py::tuple backward_plan(py::handle image, py::handle text, py::handle logit_scale, py::handle rows, py::handle columns,
                        py::handle grad_rows, py::handle grad_columns, py::handle grad_image, py::handle grad_text,
                        py::handle scale_dot, int64_t chunk_side) {
    Execution execution("cuda", 1, 0);
    const py::none none;
    InfoNceProblem p = backward_problem(execution, {image, text, none, none, none, none, logit_scale, none, 1, 0}, rows,
                                        columns, grad_rows, grad_columns, grad_image, grad_text, scale_dot);
    return described(p, info_nce_backward_workspace, plan_info_nce_backward, chunk_side);
}

py::tuple sigmoid_plan(py::handle image, py::handle text, py::handle logit_scale, py::handle row_loss,
                       py::handle grad_image, py::handle grad_text, py::handle scale_dot, py::handle grad_bias,
                       int64_t chunk_side) {
    Execution execution("cuda", 1, 0);
    const py::none none;
    SigmoidProblem p = sigmoid_problem(execution, {image, text, none, none, none, none, logit_scale, none, 1, 0},
                                       row_loss, none, grad_image, grad_text, scale_dot, grad_bias);
    return described(p, sigmoid_workspace, plan_sigmoid, chunk_side);
}

}  // namespace

void bind_contrastive(py::module_& m) {
    m.def("contrastive_forward", &contrastive_forward);
    m.def("contrastive_backward", &contrastive_backward);
    m.def("sigmoid_forward", &sigmoid_forward);
    m.def("contrastive_forward_plan", &forward_plan);
    m.def("contrastive_backward_plan", &backward_plan);
    m.def("sigmoid_plan", &sigmoid_plan);
}

}  // namespace vlmk::python
