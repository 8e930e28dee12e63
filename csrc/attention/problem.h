// The contract of the attention operation: everything a backend needs to know, as plain data. Also in the parameter of
// the CUDA kernels.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/per_isa.h"

namespace vlmk {

// A (batch, heads, rows, head_dim) tensor, strides in elements, head_dim contiguous. Packed tensors have batch stride
// 0.
struct HeadTensor {
    void* data = nullptr;
    int64_t batch_stride = 0, head_stride = 0, row_stride = 0;
};

// A bool tensor over (batch, rows[, columns]); null if absent.
struct FlagTensor {
    const bool* data = nullptr;
    int64_t batch_stride = 0, row_stride = 0, column_stride = 0;
};

// A mask over (batch, heads_q, seqlen_q, seqlen_k), any strides (0 where broadcast). bool: true may attend; floating:
// added to the scores.
struct MaskTensor {
    const void* data = nullptr;
    DType dtype = DType::boolean;
    int64_t batch_stride = 0, head_stride = 0, row_stride = 0, column_stride = 0;
};

enum class Causal : int { none = 0, top_left = 1, bottom_right = 2 };

struct AttentionProblem {
    DType dtype = DType::f32;
    int64_t batch = 0, heads_q = 0, heads_k = 0, head_dim = 0;
    int64_t seqlen_q = 0, seqlen_k = 0;  // of every sequence; packed: rows in total

    // Packed sequences: (batch + 1) boundaries each, or null.
    const int32_t* cu_seqlens_q = nullptr;
    const int32_t* cu_seqlens_k = nullptr;

    HeadTensor query, key, value, out;
    float* lse = nullptr;  // (batch, heads_q, seqlen_q), packed (heads_q, seqlen_q), contiguous; the forward pass may
                           // leave it out

    MaskTensor mask;
    FlagTensor visible;  // columns are tiles of tokens_per_tile keys
    int64_t tokens_per_tile = 0;
    FlagTensor query_padding, key_padding;  // a pair is masked where both are set

    Causal causal = Causal::none;
    int64_t window_left = -1, window_right = -1;  // -1: unlimited
    float scale = 1.0f;
    float softcap = 0.0f;  // 0: none

    int threads = 1;

    // Room for what the kernels of GPUs compute in between; see attention_workspace and attention_backward_workspace.
    float* workspace = nullptr;

    // Backward only.
    HeadTensor grad_out, grad_query, grad_key, grad_value;
    const float* grad_lse = nullptr;  // like lse, or null
};

VLMK_DECLARE_PER_ISA(void attention_forward(const AttentionProblem& problem))
VLMK_DECLARE_PER_ISA(void attention_backward(const AttentionProblem& problem))

}  // namespace vlmk
