#include "contrastive/problem.h"
#include "core/error.h"
#include "python/operations.h"
#include "python/tensor.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

const TensorView vector(const TensorView& t, const char* argument, DType dtype, int64_t count) {
    if (!t) return t;
    expect(t, argument, dtype, {count});
    require(t.contiguous(), std::string(argument) + " must be contiguous");
    return t;
}

Features features(const TensorView& t, const char* argument, py::handle factor, py::handle group) {
    require(t.ndim == 2 && (t.shape[1] <= 1 || t.stride[1] == 1),
            std::string(argument) + " must be (count, D), contiguous in D");
    Features f;
    f.data = t.data;
    f.count = t.shape[0];
    f.row_stride = t.stride[0];
    f.factor = static_cast<const float*>(vector(view(factor, "factor"), "factor", DType::f32, f.count).data);
    f.group = static_cast<const int64_t*>(vector(view(group, "labels"), "labels", DType::i64, f.count).data);
    return f;
}

void fill(ContrastiveProblem& p, py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
          py::handle image_group, py::handle text_group, double scale, double bias, int labels, int64_t label_offset,
          int threads) {
    const TensorView x = view(image, "image"), y = view(text, "text");
    if (x.dtype != DType::f32 && x.dtype != DType::bf16 && x.dtype != DType::f16)
        throw TypeError("image must be float32, bfloat16 or float16");
    require(x.dtype == y.dtype, "image and text must have one dtype");
    p.dtype = x.dtype;
    p.image = features(x, "image", image_factor, image_group);
    p.text = features(y, "text", text_factor, text_group);
    p.dim = x.shape[1];
    require(y.shape[1] == p.dim && p.dim > 0, "image and text must have one width");
    require((p.image.factor == nullptr) == (p.text.factor == nullptr) || p.image.count == 0 || p.text.count == 0,
            "factors must be given for both sides or none");
    require(labels >= 0 && labels <= 2, "labels must be 0, 1 or 2");
    p.labels = static_cast<Labels>(labels);
    require(p.labels != Labels::groups || (!image_group.is_none() && !text_group.is_none()),
            "labels by group need both group tensors");
    p.scale = static_cast<float>(scale);
    p.bias = static_cast<float>(bias);
    p.label_offset = label_offset;
    p.threads = threads < 1 ? 1 : threads;
}

// (4, count): logsumexp, target, mean, positives; (3, count) for gradients.
Statistics statistics(py::handle tensor, const char* argument, int64_t lines, int64_t count) {
    const TensorView t = view(tensor, argument);
    expect(t, argument, DType::f32, {lines, count});
    require(t.contiguous(), std::string(argument) + " must be contiguous");
    float* data = static_cast<float*>(t.data);
    return {data, data + count, data + 2 * count, lines == 4 ? data + 3 * count : nullptr};
}

void fill_gradients(ContrastiveProblem& p, py::handle grad_image, py::handle grad_text, py::handle scale_dot) {
    const TensorView gx = view(grad_image, "grad_image"), gy = view(grad_text, "grad_text");
    expect(gx, "grad_image", p.dtype, {p.image.count, p.dim});
    expect(gy, "grad_text", p.dtype, {p.text.count, p.dim});
    require(gx.contiguous() && gy.contiguous(), "gradients must be contiguous");
    require(!scale_dot.is_none(), "scale_dot must be given with the gradients");
    p.image.grad = gx.data;
    p.text.grad = gy.data;
    p.scale_dot =
        static_cast<float*>(vector(view(scale_dot, "scale_dot"), "scale_dot", DType::f32, p.image.count).data);
}

void run_forward(const InfoNceProblem& p) { VLMK_CALL_ACTIVE_ISA(info_nce_forward, p) }
void run_backward(const InfoNceProblem& p) { VLMK_CALL_ACTIVE_ISA(info_nce_backward, p) }
void run_sigmoid(const SigmoidProblem& p) { VLMK_CALL_ACTIVE_ISA(sigmoid_loss, p) }

void contrastive_forward(py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
                         py::handle image_group, py::handle text_group, double scale, int labels, int64_t label_offset,
                         py::handle rows, py::handle columns, int threads) {
    InfoNceProblem p;
    fill(p, image, text, image_factor, text_factor, image_group, text_group, scale, 0.0, labels, label_offset, threads);
    p.rows = statistics(rows, "rows", 4, p.image.count);
    p.columns = statistics(columns, "columns", 4, p.text.count);
    const py::gil_scoped_release release;
    run_forward(p);
}

void contrastive_backward(py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
                          py::handle image_group, py::handle text_group, double scale, int labels, int64_t label_offset,
                          py::handle rows, py::handle columns, py::handle grad_rows, py::handle grad_columns,
                          py::handle grad_image, py::handle grad_text, py::handle scale_dot, int threads) {
    InfoNceProblem p;
    fill(p, image, text, image_factor, text_factor, image_group, text_group, scale, 0.0, labels, label_offset, threads);
    p.rows = statistics(rows, "rows", 4, p.image.count);
    p.columns = statistics(columns, "columns", 4, p.text.count);
    p.grad_rows = statistics(grad_rows, "grad_rows", 3, p.image.count);
    p.grad_columns = statistics(grad_columns, "grad_columns", 3, p.text.count);
    fill_gradients(p, grad_image, grad_text, scale_dot);
    const py::gil_scoped_release release;
    run_backward(p);
}

// Loss, gradients, or both: what is None is not computed.
void sigmoid_forward(py::handle image, py::handle text, py::handle image_factor, py::handle text_factor,
                     py::handle image_group, py::handle text_group, double scale, double bias, int labels,
                     int64_t label_offset, py::handle row_loss, py::handle row_weight, py::handle grad_image,
                     py::handle grad_text, py::handle scale_dot, py::handle grad_bias, int threads) {
    SigmoidProblem p;
    fill(p, image, text, image_factor, text_factor, image_group, text_group, scale, bias, labels, label_offset,
         threads);
    p.row_loss = static_cast<double*>(vector(view(row_loss, "row_loss"), "row_loss", DType::f64, p.image.count).data);
    p.row_weight =
        static_cast<const float*>(vector(view(row_weight, "row_weight"), "row_weight", DType::f32, p.image.count).data);
    if (!grad_image.is_none()) {
        fill_gradients(p, grad_image, grad_text, scale_dot);
        require(!grad_bias.is_none(), "grad_bias must be given with the gradients");
        p.grad_bias =
            static_cast<float*>(vector(view(grad_bias, "grad_bias"), "grad_bias", DType::f32, p.image.count).data);
    }
    const py::gil_scoped_release release;
    run_sigmoid(p);
}

}  // namespace

void bind_contrastive(py::module_& m) {
    m.def("contrastive_forward", &contrastive_forward);
    m.def("contrastive_backward", &contrastive_backward);
    m.def("sigmoid_forward", &sigmoid_forward);
}

}  // namespace vlmk::python
