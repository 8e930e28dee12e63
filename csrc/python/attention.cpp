#include <cmath>

#include "attention/plan.h"
#include "attention/problem.h"
#include "core/error.h"
#include "core/isa.h"
#include "python/execution.h"
#include "python/operations.h"
#include "python/reports.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

// (B, H, S, D), or packed (T, H, D).
HeadTensor head_tensor(const TensorView& t, const char* argument) {
    require(t.shape[t.ndim - 1] <= 1 || t.stride[t.ndim - 1] == 1, argument,
            " must be contiguous in its last dimension");
    if (t.ndim == 3) return {t.data, 0, t.stride[1], t.stride[0]};
    return {t.data, t.stride[0], t.stride[1], t.stride[2]};
}

// The boundaries of sequences, where the CPU can read them; on a GPU that would make it wait. Kernels stay within the
// tensors whatever they are.
void check_boundaries(const AttentionProblem& p) {
    for (int64_t n = 0; n < p.batch; ++n)
        require(p.cu_seqlens_q[n] <= p.cu_seqlens_q[n + 1] && p.cu_seqlens_k[n] <= p.cu_seqlens_k[n + 1],
                "cu_seqlens must not decrease");
    require(p.cu_seqlens_q[0] == 0 && p.cu_seqlens_k[0] == 0, "cu_seqlens must start at 0");
    require(p.cu_seqlens_q[p.batch] <= p.seqlen_q && p.cu_seqlens_k[p.batch] <= p.seqlen_k,
            "cu_seqlens must not end past the rows");
}

void fill_sizes(AttentionProblem& p, const TensorView& query, const TensorView& key, const TensorView& cu_seqlens_q,
                const TensorView& cu_seqlens_k) {
    const bool packed = static_cast<bool>(cu_seqlens_q);
    const int rank = packed ? 3 : 4;
    require(query.ndim == rank && key.ndim == rank, "query and key have the wrong rank");
    p.dtype = query.dtype;
    if (p.dtype != DType::f32 && p.dtype != DType::bf16 && p.dtype != DType::f16)
        throw TypeError("query must be float32, bfloat16 or float16");
    const int row_axis = packed ? 0 : 2;
    p.heads_q = query.shape[1];
    p.heads_k = key.shape[1];
    p.seqlen_q = query.shape[row_axis];
    p.seqlen_k = key.shape[row_axis];
    p.head_dim = query.shape[rank - 1];
    require(p.head_dim > 0 && p.head_dim % 8 == 0 && p.head_dim <= 256,
            "query must have a head_dim that is a multiple of 8 up to 256");
    require(p.heads_k == 0 ? p.heads_q == 0 : p.heads_q % p.heads_k == 0,
            "query must have a multiple of the heads of key");
    if (!packed) {
        p.batch = query.shape[0];
        return;
    }
    p.batch = cu_seqlens_q.elements() - 1;
    require(p.batch >= 0, "cu_seqlens_q must not be empty");
    expect(cu_seqlens_q, "cu_seqlens_q", DType::i32, {p.batch + 1});
    expect(cu_seqlens_k, "cu_seqlens_k", DType::i32, {p.batch + 1});
    require(cu_seqlens_q.contiguous() && cu_seqlens_k.contiguous(), "cu_seqlens_q and cu_seqlens_k must be contiguous");
    p.cu_seqlens_q = static_cast<const int32_t*>(cu_seqlens_q.data);
    p.cu_seqlens_k = static_cast<const int32_t*>(cu_seqlens_k.data);
    if (cu_seqlens_q.device == kHost) check_boundaries(p);
}

// A tensor of the query's or the key's shape.
HeadTensor like(const AttentionProblem& p, const TensorView& t, const char* argument, bool query) {
    const int64_t heads = query ? p.heads_q : p.heads_k, rows = query ? p.seqlen_q : p.seqlen_k;
    if (p.cu_seqlens_q != nullptr)
        expect(t, argument, p.dtype, {rows, heads, p.head_dim});
    else
        expect(t, argument, p.dtype, {p.batch, heads, rows, p.head_dim});
    return head_tensor(t, argument);
}

float* lse_like(const AttentionProblem& p, const TensorView& t, const char* argument) {
    if (!t) return nullptr;
    if (p.cu_seqlens_q != nullptr)
        expect(t, argument, DType::f32, {p.heads_q, p.seqlen_q});
    else
        expect(t, argument, DType::f32, {p.batch, p.heads_q, p.seqlen_q});
    require(t.contiguous(), argument, " must be contiguous");
    return static_cast<float*>(t.data);
}

void fill_masks(AttentionProblem& p, const TensorView& mask, const TensorView& visible, const TensorView& query_padding,
                const TensorView& key_padding) {
    require(p.cu_seqlens_q == nullptr || !(mask || visible || query_padding || key_padding),
            "packed sequences take no masks");
    if (mask) {
        require(mask.dtype == DType::boolean || mask.dtype == DType::f32 || mask.dtype == p.dtype,
                "mask must be bool, float32 or the query's dtype");
        expect(mask, "mask", mask.dtype, {p.batch, p.heads_q, p.seqlen_q, p.seqlen_k});
        p.mask = {mask.data, mask.dtype, mask.stride[0], mask.stride[1], mask.stride[2], mask.stride[3]};
    }
    if (visible) {
        require(visible.ndim == 3, "visible must have 3 dimensions");
        expect(visible, "visible", DType::boolean, {p.batch, p.seqlen_q, visible.shape[2]});
        require(p.tokens_per_tile > 0 && (p.seqlen_k + p.tokens_per_tile - 1) / p.tokens_per_tile <= visible.shape[2],
                "visible must have a tile for every key");
        p.visible = {static_cast<const bool*>(visible.data), visible.stride[0], visible.stride[1], visible.stride[2]};
    }
    if (query_padding || key_padding) {
        expect(query_padding, "query_padding", DType::boolean, {p.batch, p.seqlen_q});
        expect(key_padding, "key_padding", DType::boolean, {p.batch, p.seqlen_k});
        p.query_padding = {static_cast<const bool*>(query_padding.data), query_padding.stride[0],
                           query_padding.stride[1], 0};
        p.key_padding = {static_cast<const bool*>(key_padding.data), key_padding.stride[0], key_padding.stride[1], 0};
    }
}

// What every call says beside its tensors.
struct Options {
    int causal;
    int64_t window_left, window_right;
    py::object scale;  // None: 1 / sqrt(head_dim)
    double softcap;
    int64_t tokens_per_tile;
};

void fill_options(AttentionProblem& p, const Options& o, int threads) {
    require(o.causal >= 0 && o.causal <= 2, "causal must be 0, 1 or 2");
    p.causal = static_cast<Causal>(o.causal);
    p.window_left = o.window_left;
    p.window_right = o.window_right;
    p.scale = o.scale.is_none() ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.head_dim)))
                                : o.scale.cast<float>();
    p.softcap = static_cast<float>(o.softcap);
    p.tokens_per_tile = o.tokens_per_tile;
    p.threads = threads;
}

AttentionProblem forward_problem(Execution& execution, py::handle query, py::handle key, py::handle value,
                                 py::handle out, py::handle lse, py::handle mask, py::handle visible,
                                 py::handle query_padding, py::handle key_padding, py::handle cu_seqlens_q,
                                 py::handle cu_seqlens_k, const Options& options) {
    AttentionProblem p;
    const TensorView q = execution.view(query, "query"), k = execution.view(key, "key");
    fill_sizes(p, q, k, execution.view(cu_seqlens_q, "cu_seqlens_q"), execution.view(cu_seqlens_k, "cu_seqlens_k"));
    fill_options(p, options, execution.threads());
    p.query = like(p, q, "query", true);
    p.key = like(p, k, "key", false);
    p.value = like(p, execution.view(value, "value"), "value", false);
    p.out = like(p, execution.view(out, "out", Access::write), "out", true);
    p.lse = lse_like(p, execution.view(lse, "lse", Access::write), "lse");
    fill_masks(p, execution.view(mask, "mask"), execution.view(visible, "visible"),
               execution.view(query_padding, "query_padding"), execution.view(key_padding, "key_padding"));
    return p;
}

AttentionProblem backward_problem(Execution& execution, py::handle grad_out, py::handle grad_lse, py::handle query,
                                  py::handle key, py::handle value, py::handle out, py::handle lse,
                                  py::handle grad_query, py::handle grad_key, py::handle grad_value, py::handle mask,
                                  py::handle visible, py::handle query_padding, py::handle key_padding,
                                  py::handle cu_seqlens_q, py::handle cu_seqlens_k, const Options& options) {
    AttentionProblem p;
    const TensorView q = execution.view(query, "query"), k = execution.view(key, "key");
    fill_sizes(p, q, k, execution.view(cu_seqlens_q, "cu_seqlens_q"), execution.view(cu_seqlens_k, "cu_seqlens_k"));
    fill_options(p, options, execution.threads());
    p.query = like(p, q, "query", true);
    p.key = like(p, k, "key", false);
    p.value = like(p, execution.view(value, "value"), "value", false);
    p.out = like(p, execution.view(out, "out"), "out", true);
    p.grad_out = like(p, execution.view(grad_out, "grad_out"), "grad_out", true);
    p.grad_query = like(p, execution.view(grad_query, "grad_query", Access::write), "grad_query", true);
    p.grad_key = like(p, execution.view(grad_key, "grad_key", Access::write), "grad_key", false);
    p.grad_value = like(p, execution.view(grad_value, "grad_value", Access::write), "grad_value", false);
    require(!lse.is_none(), "lse must be given");
    p.lse = lse_like(p, execution.view(lse, "lse"), "lse");
    p.grad_lse = lse_like(p, execution.view(grad_lse, "grad_lse"), "grad_lse");
    fill_masks(p, execution.view(mask, "mask"), execution.view(visible, "visible"),
               execution.view(query_padding, "query_padding"), execution.view(key_padding, "key_padding"));
    return p;
}

void run_cpu(const AttentionProblem& p, bool backward) {
    if (backward) VLMK_CALL_ACTIVE_ISA(attention_backward, p)
    // Setting up tile registers takes longer than a few keys.
    VLMK_ON_X86(constexpr int64_t kFewKeys = 16;
                if (active_isa() == Isa::amx_bf16 && p.seqlen_k <= kFewKeys) return avx512_bf16::attention_forward(p);)
    VLMK_CALL_ACTIVE_ISA(attention_forward, p)
}

void run(const Execution& execution, const AttentionProblem& p, bool backward) {
    const py::gil_scoped_release release;
    if (execution.on_cpu()) return run_cpu(p, backward);
    const gpu::GpuLimits limits = execution.limits();
    for (const gpu::LaunchPlan& launch :
         backward ? plan_attention_backward(p, limits.shared_bytes) : plan_attention_forward(p, limits))
        execution.run(launch);
}

py::list plans_as_list(const std::vector<gpu::LaunchPlan>& launches) {
    py::list plans;
    for (const gpu::LaunchPlan& launch : launches) plans.append(plan_as_dict(launch));
    return plans;
}

// Room for so many fp32 numbers, which the caller's tensor library makes. It must live until the kernels are queued.
py::object borrow_workspace(Execution& execution, AttentionProblem& p, int64_t numbers, const py::object& new_tensor) {
    if (execution.on_cpu() || numbers == 0) return py::none();
    py::object room = new_tensor(numbers);
    const TensorView view = execution.view(room, "workspace", Access::write);
    expect(view, "workspace", DType::f32, {numbers});
    p.workspace = static_cast<float*>(view.data);
    return room;
}

void forward(py::handle query, py::handle key, py::handle value, py::handle out, py::handle lse, py::handle mask,
             py::handle visible, py::handle query_padding, py::handle key_padding, py::handle cu_seqlens_q,
             py::handle cu_seqlens_k, int causal, int64_t window_left, int64_t window_right, py::object scale,
             double softcap, int64_t tokens_per_tile, const std::string& backend, int threads, uint64_t stream,
             const py::object& new_tensor) {
    Execution execution(backend, threads, stream);
    const Options options{causal, window_left, window_right, std::move(scale), softcap, tokens_per_tile};
    AttentionProblem p = forward_problem(execution, query, key, value, out, lse, mask, visible, query_padding,
                                         key_padding, cu_seqlens_q, cu_seqlens_k, options);
    const py::object room = borrow_workspace(execution, p, attention_workspace(p), new_tensor);
    run(execution, p, false);
}

void backward(py::handle grad_out, py::handle grad_lse, py::handle query, py::handle key, py::handle value,
              py::handle out, py::handle lse, py::handle grad_query, py::handle grad_key, py::handle grad_value,
              py::handle mask, py::handle visible, py::handle query_padding, py::handle key_padding,
              py::handle cu_seqlens_q, py::handle cu_seqlens_k, int causal, int64_t window_left, int64_t window_right,
              py::object scale, double softcap, int64_t tokens_per_tile, const std::string& backend, int threads,
              uint64_t stream, const py::object& new_tensor) {
    Execution execution(backend, threads, stream);
    const Options options{causal, window_left, window_right, std::move(scale), softcap, tokens_per_tile};
    AttentionProblem p =
        backward_problem(execution, grad_out, grad_lse, query, key, value, out, lse, grad_query, grad_key, grad_value,
                         mask, visible, query_padding, key_padding, cu_seqlens_q, cu_seqlens_k, options);
    const py::object room = borrow_workspace(execution, p, attention_backward_workspace(p), new_tensor);
    run(execution, p, true);
}

py::list forward_plan(py::handle query, py::handle key, py::handle value, py::handle out, py::handle lse,
                      py::handle mask, py::handle visible, py::handle query_padding, py::handle key_padding,
                      py::handle cu_seqlens_q, py::handle cu_seqlens_k, int causal, int64_t window_left,
                      int64_t window_right, py::object scale, double softcap, int64_t tokens_per_tile, int shared_bytes,
                      int multiprocessors) {
    Execution execution("cuda", 1, 0);
    const Options options{causal, window_left, window_right, std::move(scale), softcap, tokens_per_tile};
    return plans_as_list(
        plan_attention_forward(forward_problem(execution, query, key, value, out, lse, mask, visible, query_padding,
                                               key_padding, cu_seqlens_q, cu_seqlens_k, options),
                               {shared_bytes, multiprocessors}));
}

py::list backward_plan(py::handle grad_out, py::handle grad_lse, py::handle query, py::handle key, py::handle value,
                       py::handle out, py::handle lse, py::handle grad_query, py::handle grad_key,
                       py::handle grad_value, py::handle mask, py::handle visible, py::handle query_padding,
                       py::handle key_padding, py::handle cu_seqlens_q, py::handle cu_seqlens_k, int causal,
                       int64_t window_left, int64_t window_right, py::object scale, double softcap,
                       int64_t tokens_per_tile, int shared_bytes) {
    Execution execution("cuda", 1, 0);
    const Options options{causal, window_left, window_right, std::move(scale), softcap, tokens_per_tile};
    const AttentionProblem p =
        backward_problem(execution, grad_out, grad_lse, query, key, value, out, lse, grad_query, grad_key, grad_value,
                         mask, visible, query_padding, key_padding, cu_seqlens_q, cu_seqlens_k, options);
    return plans_as_list(plan_attention_backward(p, shared_bytes));
}

}  // namespace

void bind_attention(py::module_& m) {
    m.def("attention_forward", &forward);
    m.def("attention_backward", &backward);
    m.def("attention_forward_plan", &forward_plan);
    m.def("attention_backward_plan", &backward_plan);
}

}  // namespace vlmk::python
