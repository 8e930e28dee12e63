// The contract of merging split attention: everything a backend needs to know, as plain data. Also the parameter of
// the CUDA kernels.
//
//     lse = log sum_i exp(lse_i),  w_i = exp(lse_i - lse),  out = sum_i w_i out_i       over splits i
//
// A split of weight 0 contributes nothing, whatever it holds; rows without weight give out 0 and lse -inf.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/inline.h"
#include "core/per_isa.h"

namespace vlmk {

constexpr int kMergeDims = 4;

// A (splits, row dimensions..., head_dim) tensor of outputs, or one of logsumexps without head_dim, or the merged one
// without splits. Strides in elements; head_dim is contiguous.
struct SplitTensor {
    void* data = nullptr;
    int64_t split_stride = 0;
    int64_t row_stride[kMergeDims] = {};

    // Where the row with these indices starts.
    VLMK_HOST_DEVICE VLMK_INLINE int64_t offset(const int64_t (&index)[kMergeDims]) const {
        int64_t sum = 0;
        for (int d = 0; d < kMergeDims; ++d) sum += index[d] * row_stride[d];
        return sum;
    }
};

struct MergeProblem {
    DType dtype = DType::f32;  // of outputs, out and their gradients; everything else is fp32
    int64_t splits = 0, head_dim = 0;
    int64_t rows[kMergeDims] = {1, 1, 1,
                                1};  // sizes of the row dimensions, as few as the strides allow, innermost last

    SplitTensor outputs, lses, out, lse;

    // Backward only; lse is then an input.
    SplitTensor grad_out, grad_lse;  // grad_lse may be absent
    SplitTensor grad_outputs, grad_lses;

    int threads = 1;

    VLMK_HOST_DEVICE VLMK_INLINE int64_t row_count() const { return rows[0] * rows[1] * rows[2] * rows[3]; }

    // Indices of a row by its number. Most problems have a single row dimension left, and divide nothing.
    template <class Number>
    VLMK_HOST_DEVICE VLMK_INLINE void find_row(Number row, int64_t (&index)[kMergeDims]) const {
        for (int d = kMergeDims - 1; d > 0; --d) {
            const Number size = static_cast<Number>(rows[d]);
            const bool last = row < size;
            index[d] = last ? row : row % size;
            row = last ? 0 : row / size;
        }
        index[0] = row;
    }
};

VLMK_DECLARE_PER_ISA(void merge_attention_forward(const MergeProblem& problem))
VLMK_DECLARE_PER_ISA(void merge_attention_backward(const MergeProblem& problem))

}  // namespace vlmk
