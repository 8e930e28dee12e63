#include "core/error.h"
#include "core/isa.h"
#include "patch_embed/plan.h"
#include "patch_embed/problem.h"
#include "python/execution.h"
#include "python/operations.h"
#include "python/reports.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

bool is_kernel_dtype(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

const void* contiguous_data(const TensorView& t, const char* argument) {
    require(t.contiguous(), argument, " must be contiguous");
    return t.data;
}

// `pixels` is (B, T, C, H, W) with any strides, already permuted from its layout; `weight` (E, C, Pt, Ph, Pw).
void fill_image(PatchSource& s, const TensorView& pixels, const TensorView& weight) {
    require(pixels.ndim == 5, "pixels must have 5 dimensions");
    require(pixels.shape[2] == weight.shape[1], "pixels and weight must have the same channels");
    const int axes[3] = {1, 3, 4};
    for (int i = 0; i < 3; ++i) {
        s.patch[i] = weight.shape[2 + i];
        require(s.patch[i] > 0, "weight must have patches of at least one pixel");
        s.grid[i] = pixels.shape[axes[i]] / s.patch[i];
        s.pixel_stride[i] = pixels.stride[axes[i]];
        s.grid_stride[i] = s.patch[i] * s.pixel_stride[i];
    }
    s.channel_stride = pixels.stride[2];
}

// `pixels` is (B, N, K) with contiguous K; the order of the K numbers is (C, T, P, P) or (T, P, P, C).
void fill_packed(PatchSource& s, const TensorView& pixels, const TensorView& weight, bool channels_last) {
    require(pixels.ndim == 3 && (pixels.shape[2] <= 1 || pixels.stride[2] == 1),
            "patches must be (B, N, K), contiguous in K");
    for (int i = 0; i < 3; ++i) s.patch[i] = weight.shape[2 + i];
    const int64_t channels = weight.shape[1], area = s.patch[0] * s.patch[1] * s.patch[2];
    require(area > 0 && pixels.shape[2] == channels * area, "patches must have the weight's C * Pt * Ph * Pw numbers");
    s.grid[2] = pixels.shape[1];
    s.grid_stride[2] = pixels.stride[1];
    const int64_t step = channels_last ? channels : 1;
    s.pixel_stride[2] = step;
    s.pixel_stride[1] = step * s.patch[2];
    s.pixel_stride[0] = step * s.patch[2] * s.patch[1];
    s.channel_stride = channels_last ? 1 : area;
}

// What forward and backward have in common, as Python gives it.
struct Inputs {
    py::handle pixels, weight, bias, position, prefix, mean, deviation;
    int packed;  // 0: images; else patches that are cut already, 2 with channels last
    bool prefix_behind;
};

const float* channel_data(const TensorView& t, const char* argument, int64_t channels) {
    if (!t) return nullptr;
    expect(t, argument, DType::f32, {channels});
    return static_cast<const float*>(contiguous_data(t, argument));
}

PatchEmbedProblem make_problem(Execution& execution, const Inputs& in) {
    const TensorView pixels = execution.view(in.pixels, "pixels"), weight = execution.view(in.weight, "weight"),
                     bias = execution.view(in.bias, "bias"), position = execution.view(in.position, "position"),
                     prefix = execution.view(in.prefix, "prefix");
    PatchEmbedProblem p;
    require(weight.ndim == 5, "weight must have 5 dimensions");
    if (!is_kernel_dtype(weight.dtype)) throw TypeError("weight must be float32, bfloat16 or float16");
    require(pixels.dtype == DType::u8 || is_kernel_dtype(pixels.dtype),
            "pixels must be uint8, float32, bfloat16 or float16");
    PatchSource& s = p.source;
    if (in.packed == 0)
        fill_image(s, pixels, weight);
    else
        fill_packed(s, pixels, weight, in.packed == 2);
    s.data = pixels.data;
    s.dtype = pixels.dtype;
    s.channels = weight.shape[1];
    s.batch_stride = pixels.stride[0];
    p.batch = pixels.shape[0];
    p.embed = weight.shape[0];
    p.dtype = weight.dtype;
    p.weight = contiguous_data(weight, "weight");
    p.prefix_behind = in.prefix_behind;
    p.threads = execution.threads();
    if (prefix) {
        require(prefix.ndim == 2, "prefix must have 2 dimensions");
        expect(prefix, "prefix", p.dtype, {prefix.shape[0], p.embed});
        p.prefix_tokens = prefix.shape[0];
        p.prefix = contiguous_data(prefix, "prefix");
    }
    if (bias) {
        expect(bias, "bias", p.dtype, {p.embed});
        p.bias = contiguous_data(bias, "bias");
    }
    if (position) {
        require(position.ndim == 2 && (position.shape[0] == p.tokens() || position.shape[0] == s.patches()),
                "position must have a row for every token or for every patch");
        expect(position, "position", p.dtype, {position.shape[0], p.embed});
        p.position_tokens = position.shape[0];
        p.position = contiguous_data(position, "position");
    }
    p.mean = channel_data(execution.view(in.mean, "mean"), "mean", s.channels);
    p.deviation = channel_data(execution.view(in.deviation, "std"), "std", s.channels);
    return p;
}

PatchEmbedProblem forward_problem(Execution& execution, const Inputs& in, py::handle out) {
    PatchEmbedProblem p = make_problem(execution, in);
    // Kernels compute in the weight's dtype, and read bytes or that.
    require(execution.on_cpu() || p.source.dtype == DType::u8 || p.source.dtype == p.dtype,
            "pixels must be uint8 or of the weight's dtype");
    const TensorView o = execution.view(out, "out", Access::write);
    require(is_kernel_dtype(o.dtype), "out must be float32, bfloat16 or float16");
    expect(o, "out", o.dtype, {p.batch, p.tokens(), p.embed});
    p.out_dtype = o.dtype;
    p.out = const_cast<void*>(contiguous_data(o, "out"));
    return p;
}

void* grad_like(Execution& execution, const PatchEmbedProblem& p, py::handle tensor, const char* argument,
                std::initializer_list<int64_t> shape) {
    if (tensor.is_none()) return nullptr;
    const TensorView t = execution.view(tensor, argument, Access::write);
    expect(t, argument, p.dtype, shape);
    return const_cast<void*>(contiguous_data(t, argument));
}

// Null where not wanted.
struct Gradients {
    py::handle pixels, weight, bias, position, prefix;
};

PatchEmbedProblem backward_problem(Execution& execution, py::handle grad_out, const Inputs& in,
                                   const Gradients& grads) {
    PatchEmbedProblem p = make_problem(execution, in);
    require(execution.on_cpu() || p.source.dtype == DType::u8 || p.source.dtype == p.dtype,
            "pixels must be uint8 or of the weight's dtype");
    const TensorView x = execution.view(in.pixels, "pixels"), g = execution.view(grad_out, "grad_out");
    require(is_kernel_dtype(g.dtype), "grad_out must be float32, bfloat16 or float16");
    expect(g, "grad_out", g.dtype, {p.batch, p.tokens(), p.embed});
    p.out_dtype = g.dtype;
    p.grad_out = contiguous_data(g, "grad_out");
    const int64_t* patch = p.source.patch;
    p.grad_weight = grad_like(execution, p, grads.weight, "grad_weight",
                              {p.embed, p.source.channels, patch[0], patch[1], patch[2]});
    p.grad_bias = grad_like(execution, p, grads.bias, "grad_bias", {p.embed});
    p.grad_position = grad_like(execution, p, grads.position, "grad_position", {p.position_tokens, p.embed});
    p.grad_prefix = grad_like(execution, p, grads.prefix, "grad_prefix", {p.prefix_tokens, p.embed});
    if (!grads.pixels.is_none()) {
        const TensorView t = execution.view(grads.pixels, "grad_pixels", Access::write);
        require(t.ndim == x.ndim && t.dtype == p.dtype && x.dtype == p.dtype, "grad_pixels must be like pixels");
        for (int i = 0; i < t.ndim; ++i)
            require(t.shape[i] == x.shape[i] && (t.shape[i] <= 1 || t.stride[i] == x.stride[i]),
                    "grad_pixels must be like pixels");
        p.grad_pixels = t.data;
    }
    return p;
}

void run_cpu(const PatchEmbedProblem& p, bool backward) {
    if (backward) VLMK_CALL_ACTIVE_ISA(patch_embed_backward, p)
    VLMK_CALL_ACTIVE_ISA(patch_embed_forward, p)
}

void run(const Execution& execution, const PatchEmbedProblem& p, bool backward) {
    const py::gil_scoped_release release;
    if (execution.on_cpu()) return run_cpu(p, backward);
    for (const gpu::LaunchPlan& launch : backward ? plan_patch_embed_backward(p) : plan_patch_embed_forward(p))
        execution.run(launch);
}

// Room for so many fp32 numbers, which the caller's tensor library makes. It must live until the kernels are queued.
py::object borrow_workspace(Execution& execution, PatchEmbedProblem& p, const py::object& new_tensor) {
    const int64_t numbers = execution.on_cpu() ? 0 : patch_embed_backward_workspace(p);
    if (numbers == 0) return py::none();
    py::object room = new_tensor(numbers);
    const TensorView view = execution.view(room, "workspace", Access::write);
    expect(view, "workspace", DType::f32, {numbers});
    p.workspace = static_cast<float*>(view.data);
    return room;
}

py::list plans_as_list(const std::vector<gpu::LaunchPlan>& launches) {
    py::list plans;
    for (const gpu::LaunchPlan& launch : launches) plans.append(plan_as_dict(launch));
    return plans;
}

void forward(py::handle pixels, py::handle weight, py::handle bias, py::handle position, py::handle prefix,
             py::handle mean, py::handle deviation, int packed, bool prefix_behind, py::handle out,
             const std::string& backend, int threads, uint64_t stream) {
    Execution execution(backend, threads, stream);
    const Inputs in{pixels, weight, bias, position, prefix, mean, deviation, packed, prefix_behind};
    run(execution, forward_problem(execution, in, out), false);
}

void backward(py::handle grad_out, py::handle pixels, py::handle weight, py::handle bias, py::handle position,
              py::handle prefix, py::handle mean, py::handle deviation, int packed, bool prefix_behind,
              py::handle grad_pixels, py::handle grad_weight, py::handle grad_bias, py::handle grad_position,
              py::handle grad_prefix, const std::string& backend, int threads, uint64_t stream,
              const py::object& new_tensor) {
    Execution execution(backend, threads, stream);
    const Inputs in{pixels, weight, bias, position, prefix, mean, deviation, packed, prefix_behind};
    PatchEmbedProblem p =
        backward_problem(execution, grad_out, in, {grad_pixels, grad_weight, grad_bias, grad_position, grad_prefix});
    const py::object room = borrow_workspace(execution, p, new_tensor);
    run(execution, p, true);
}

py::list forward_plan(py::handle pixels, py::handle weight, py::handle bias, py::handle position, py::handle prefix,
                      py::handle mean, py::handle deviation, int packed, bool prefix_behind, py::handle out) {
    Execution execution("cuda", 1, 0);
    const Inputs in{pixels, weight, bias, position, prefix, mean, deviation, packed, prefix_behind};
    return plans_as_list(plan_patch_embed_forward(forward_problem(execution, in, out)));
}

py::list backward_plan(py::handle grad_out, py::handle pixels, py::handle weight, py::handle bias, py::handle position,
                       py::handle prefix, py::handle mean, py::handle deviation, int packed, bool prefix_behind,
                       py::handle grad_pixels, py::handle grad_weight, py::handle grad_bias, py::handle grad_position,
                       py::handle grad_prefix) {
    Execution execution("cuda", 1, 0);
    const Inputs in{pixels, weight, bias, position, prefix, mean, deviation, packed, prefix_behind};
    return plans_as_list(plan_patch_embed_backward(
        backward_problem(execution, grad_out, in, {grad_pixels, grad_weight, grad_bias, grad_position, grad_prefix})));
}

}  // namespace

void bind_patch_embed(py::module_& m) {
    m.def("patch_embed_forward", &forward);
    m.def("patch_embed_backward", &backward);
    m.def("patch_embed_forward_plan", &forward_plan);
    m.def("patch_embed_backward_plan", &backward_plan);
}

}  // namespace vlmk::python
