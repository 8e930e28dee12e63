#include <cmath>

#include "attention/problem.h"
#include "core/error.h"
#include "python/operations.h"
#include "python/tensor.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

// (B, H, S, D), or packed (T, H, D).
HeadTensor head_tensor(const TensorView& t, const char* argument) {
    require(t.shape[t.ndim - 1] <= 1 || t.stride[t.ndim - 1] == 1,
            std::string(argument) + " must be contiguous in its last dimension");
    if (t.ndim == 3) return {t.data, 0, t.stride[1], t.stride[0]};
    return {t.data, t.stride[0], t.stride[1], t.stride[2]};
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
    for (int64_t n = 0; n < p.batch; ++n)
        require(p.cu_seqlens_q[n] <= p.cu_seqlens_q[n + 1] && p.cu_seqlens_k[n] <= p.cu_seqlens_k[n + 1],
                "cu_seqlens must not decrease");
    require(p.cu_seqlens_q[0] == 0 && p.cu_seqlens_k[0] == 0, "cu_seqlens must start at 0");
    require(p.cu_seqlens_q[p.batch] <= p.seqlen_q && p.cu_seqlens_k[p.batch] <= p.seqlen_k,
            "cu_seqlens must not end past the rows");
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
    require(t.contiguous(), std::string(argument) + " must be contiguous");
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

void fill_options(AttentionProblem& p, int causal, int64_t window_left, int64_t window_right, double softcap,
                  int64_t tokens_per_tile, int threads) {
    require(causal >= 0 && causal <= 2, "causal must be 0, 1 or 2");
    p.causal = static_cast<Causal>(causal);
    p.window_left = window_left;
    p.window_right = window_right;
    p.softcap = static_cast<float>(softcap);
    p.tokens_per_tile = tokens_per_tile;
    p.threads = threads < 1 ? 1 : threads;
}

void run_forward(const AttentionProblem& p) { VLMK_CALL_ACTIVE_ISA(attention_forward, p) }
void run_backward(const AttentionProblem& p) { VLMK_CALL_ACTIVE_ISA(attention_backward, p) }

void forward(py::handle query, py::handle key, py::handle value, py::handle out, py::handle lse, py::handle mask,
             py::handle visible, py::handle query_padding, py::handle key_padding, py::handle cu_seqlens_q,
             py::handle cu_seqlens_k, int causal, int64_t window_left, int64_t window_right, py::handle scale,
             double softcap, int64_t tokens_per_tile, int threads) {
    AttentionProblem p;
    const TensorView q = view(query, "query"), k = view(key, "key");
    fill_options(p, causal, window_left, window_right, softcap, tokens_per_tile, threads);
    fill_sizes(p, q, k, view(cu_seqlens_q, "cu_seqlens_q"), view(cu_seqlens_k, "cu_seqlens_k"));
    p.scale = scale.is_none() ? 1.0f / std::sqrt(static_cast<float>(p.head_dim)) : scale.cast<float>();
    p.query = like(p, q, "query", true);
    p.key = like(p, k, "key", false);
    p.value = like(p, view(value, "value"), "value", false);
    p.out = like(p, view(out, "out"), "out", true);
    p.lse = lse_like(p, view(lse, "lse"), "lse");
    fill_masks(p, view(mask, "mask"), view(visible, "visible"), view(query_padding, "query_padding"),
               view(key_padding, "key_padding"));
    const py::gil_scoped_release release;
    run_forward(p);
}

void backward(py::handle grad_out, py::handle grad_lse, py::handle query, py::handle key, py::handle value,
              py::handle out, py::handle lse, py::handle grad_query, py::handle grad_key, py::handle grad_value,
              py::handle mask, py::handle visible, py::handle query_padding, py::handle key_padding,
              py::handle cu_seqlens_q, py::handle cu_seqlens_k, int causal, int64_t window_left, int64_t window_right,
              py::handle scale, double softcap, int64_t tokens_per_tile, int threads) {
    AttentionProblem p;
    const TensorView q = view(query, "query"), k = view(key, "key");
    fill_options(p, causal, window_left, window_right, softcap, tokens_per_tile, threads);
    fill_sizes(p, q, k, view(cu_seqlens_q, "cu_seqlens_q"), view(cu_seqlens_k, "cu_seqlens_k"));
    p.scale = scale.is_none() ? 1.0f / std::sqrt(static_cast<float>(p.head_dim)) : scale.cast<float>();
    p.query = like(p, q, "query", true);
    p.key = like(p, k, "key", false);
    p.value = like(p, view(value, "value"), "value", false);
    p.out = like(p, view(out, "out"), "out", true);
    p.grad_out = like(p, view(grad_out, "grad_out"), "grad_out", true);
    p.grad_query = like(p, view(grad_query, "grad_query"), "grad_query", true);
    p.grad_key = like(p, view(grad_key, "grad_key"), "grad_key", false);
    p.grad_value = like(p, view(grad_value, "grad_value"), "grad_value", false);
    require(!lse.is_none(), "lse must be given");
    p.lse = lse_like(p, view(lse, "lse"), "lse");
    p.grad_lse = lse_like(p, view(grad_lse, "grad_lse"), "grad_lse");
    fill_masks(p, view(mask, "mask"), view(visible, "visible"), view(query_padding, "query_padding"),
               view(key_padding, "key_padding"));
    const py::gil_scoped_release release;
    run_backward(p);
}

}  // namespace

void bind_attention(py::module_& m) {
    m.def("attention_forward", &forward);
    m.def("attention_backward", &backward);
}

}  // namespace vlmk::python
