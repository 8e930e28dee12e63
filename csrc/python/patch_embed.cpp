#include "core/error.h"
#include "patch_embed/problem.h"
#include "python/operations.h"
#include "python/tensor.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

bool is_kernel_dtype(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

const void* contiguous_data(const TensorView& t, const char* argument) {
    require(t.contiguous(), std::string(argument) + " must be contiguous");
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

void fill(PatchEmbedProblem& p, const TensorView& pixels, const TensorView& weight, const TensorView& bias,
          const TensorView& position, const TensorView& prefix, const TensorView& scale, const TensorView& shift,
          int packed, bool prefix_behind, int threads) {
    require(weight.ndim == 5, "weight must have 5 dimensions");
    if (!is_kernel_dtype(weight.dtype)) throw TypeError("weight must be float32, bfloat16 or float16");
    require(pixels.dtype == DType::u8 || is_kernel_dtype(pixels.dtype),
            "pixels must be uint8, float32, bfloat16 or float16");
    PatchSource& s = p.source;
    if (packed == 0)
        fill_image(s, pixels, weight);
    else
        fill_packed(s, pixels, weight, packed == 2);
    s.data = pixels.data;
    s.dtype = pixels.dtype;
    s.channels = weight.shape[1];
    s.batch_stride = pixels.stride[0];
    p.batch = pixels.shape[0];
    p.embed = weight.shape[0];
    p.dtype = weight.dtype;
    p.weight = contiguous_data(weight, "weight");
    p.prefix_behind = prefix_behind;
    p.threads = threads < 1 ? 1 : threads;
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
    expect(scale, "scale", DType::f32, {s.channels});
    expect(shift, "shift", DType::f32, {s.channels});
    p.scale = static_cast<const float*>(contiguous_data(scale, "scale"));
    p.shift = static_cast<const float*>(contiguous_data(shift, "shift"));
}

void run_forward(const PatchEmbedProblem& p) { VLMK_CALL_ACTIVE_ISA(patch_embed_forward, p) }
void run_backward(const PatchEmbedProblem& p) { VLMK_CALL_ACTIVE_ISA(patch_embed_backward, p) }

void forward(py::handle pixels, py::handle weight, py::handle bias, py::handle position, py::handle prefix,
             py::handle scale, py::handle shift, int packed, bool prefix_behind, py::handle out, int threads) {
    PatchEmbedProblem p;
    fill(p, view(pixels, "pixels"), view(weight, "weight"), view(bias, "bias"), view(position, "position"),
         view(prefix, "prefix"), view(scale, "scale"), view(shift, "shift"), packed, prefix_behind, threads);
    const TensorView o = view(out, "out");
    require(is_kernel_dtype(o.dtype), "out must be float32, bfloat16 or float16");
    expect(o, "out", o.dtype, {p.batch, p.tokens(), p.embed});
    p.out_dtype = o.dtype;
    p.out = const_cast<void*>(contiguous_data(o, "out"));
    const py::gil_scoped_release release;
    run_forward(p);
}

void* grad_like(const PatchEmbedProblem& p, py::handle tensor, const char* argument,
                std::initializer_list<int64_t> shape) {
    if (tensor.is_none()) return nullptr;
    const TensorView t = view(tensor, argument);
    expect(t, argument, p.dtype, shape);
    return const_cast<void*>(contiguous_data(t, argument));
}

void backward(py::handle grad_out, py::handle pixels, py::handle weight, py::handle bias, py::handle position,
              py::handle prefix, py::handle scale, py::handle shift, int packed, bool prefix_behind,
              py::handle grad_pixels, py::handle grad_weight, py::handle grad_bias, py::handle grad_position,
              py::handle grad_prefix, int threads) {
    PatchEmbedProblem p;
    const TensorView x = view(pixels, "pixels"), w = view(weight, "weight"), g = view(grad_out, "grad_out");
    fill(p, x, w, view(bias, "bias"), view(position, "position"), view(prefix, "prefix"), view(scale, "scale"),
         view(shift, "shift"), packed, prefix_behind, threads);
    require(is_kernel_dtype(g.dtype), "grad_out must be float32, bfloat16 or float16");
    expect(g, "grad_out", g.dtype, {p.batch, p.tokens(), p.embed});
    p.out_dtype = g.dtype;
    p.grad_out = contiguous_data(g, "grad_out");
    p.grad_weight =
        grad_like(p, grad_weight, "grad_weight", {w.shape[0], w.shape[1], w.shape[2], w.shape[3], w.shape[4]});
    p.grad_bias = grad_like(p, grad_bias, "grad_bias", {p.embed});
    p.grad_position = grad_like(p, grad_position, "grad_position", {p.position_tokens, p.embed});
    p.grad_prefix = grad_like(p, grad_prefix, "grad_prefix", {p.prefix_tokens, p.embed});
    if (!grad_pixels.is_none()) {
        const TensorView t = view(grad_pixels, "grad_pixels");
        require(t.ndim == x.ndim && t.dtype == p.dtype && x.dtype == p.dtype, "grad_pixels must be like pixels");
        for (int i = 0; i < t.ndim; ++i)
            require(t.shape[i] == x.shape[i] && (t.shape[i] <= 1 || t.stride[i] == x.stride[i]),
                    "grad_pixels must be like pixels");
        p.grad_pixels = t.data;
    }
    const py::gil_scoped_release release;
    run_backward(p);
}

}  // namespace

void bind_patch_embed(py::module_& m) {
    m.def("patch_embed_forward", &forward);
    m.def("patch_embed_backward", &backward);
}

}  // namespace vlmk::python
