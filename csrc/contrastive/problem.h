// The contract of the contrastive losses: everything a backend needs to know, as plain data. Also part of the parameter
// of the CUDA kernels.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/inline.h"
#include "core/per_isa.h"

namespace vlmk {

// Features of one side: (count, dim) rows, dim contiguous. `factor` multiplies each row inside (inverse norms), null
// for 1.
struct Features {
    const void* data = nullptr;
    int64_t count = 0, row_stride = 0;
    const float* factor = nullptr;
    const int64_t* group = nullptr;  // labels by group

    void* grad = nullptr;  // (count, dim) contiguous, in the dtype of the features
};

enum class Labels : int { none = 0, diagonal = 1, groups = 2 };

// z_ij = scale * <x_i, y_j> + bias, x the rows of `image`, y those of `text`, each times its factor. Positives: j = i +
// label_offset, or equal groups.
struct ContrastiveProblem {
    DType dtype = DType::f32;
    int64_t dim = 0;
    Features image, text;
    const float* scale = nullptr;  // one number each, in the memory of the features: nobody waits for a GPU's
    const float* bias = nullptr;   // null for 0
    Labels labels = Labels::diagonal;
    int64_t label_offset = 0;
    int threads = 1;

    // CUDA: room for what a plan asks for, and rows and columns of a chunk of the matrix (0: gpu_tiles.h says how
    // many).
    float* workspace = nullptr;
    int64_t chunk_side = 0;

    // Backward, (image.count): the row's share of the scale's gradient, sum_j G_ij (z_ij - bias) / scale with G = d
    // loss / d z before it is rounded for the products; at scale 0, where z says nothing, <row, sum_j G_ij other_j>.
    float* scale_dot = nullptr;

    // A side without rows has none to point to.
    VLMK_HOST_DEVICE VLMK_INLINE bool wants_gradients() const { return image.grad != nullptr || text.grad != nullptr; }
};

// Statistics of one direction, of `count` rows (columns): logsumexp, mean of z over the positives, mean of z over all,
// number of positives.
struct Statistics {
    float* logsumexp = nullptr;
    float* target = nullptr;
    float* mean = nullptr;
    float* positives = nullptr;
};

struct InfoNceProblem : ContrastiveProblem {
    Statistics rows, columns;            // results of the forward pass, inputs of the backward pass
    Statistics grad_rows, grad_columns;  // backward: gradients of the first three statistics
};

struct SigmoidProblem : ContrastiveProblem {
    double* row_loss = nullptr;         // sum_j softplus(z_ij) - sum over positives z_ij, or null
    const float* row_weight = nullptr;  // d loss / d row_loss, null for 1
    float* grad_bias = nullptr;         // (image.count): the row's share of the bias' gradient
};

VLMK_DECLARE_PER_ISA(void info_nce_forward(const InfoNceProblem& problem))
VLMK_DECLARE_PER_ISA(void info_nce_backward(const InfoNceProblem& problem))
VLMK_DECLARE_PER_ISA(void sigmoid_loss(const SigmoidProblem& problem))

}  // namespace vlmk
