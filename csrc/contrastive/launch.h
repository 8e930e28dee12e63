// The parameters of the CUDA kernels: the problem, and the chunk of the matrix of logits that a launch works on.
#pragma once
#include "contrastive/problem.h"
#include "core/inline.h"

namespace vlmk {

// fp32 numbers of strips: `planes` of them, each (strips, count), neighbours neighbouring rows or columns.
struct Partials {
    float* data = nullptr;
    int strips = 0, count = 0;

    VLMK_HOST_DEVICE VLMK_INLINE float* at(int plane, int strip) const {
        return data + (int64_t{plane} * strips + strip) * count;
    }
};

// Powers of two that bring G into the range of fp16 and back.
struct Range {
    float up, down;
};

// fp32 sums of rows of features, `stride` numbers apart: whole, or the upper 16 bits of each where the 16-bit gradients
// will be and the lower ones apart, which takes half the room.
struct FeatureSums {
    float* whole = nullptr;
    uint16_t *upper = nullptr, *lower = nullptr;
    int stride = 0;

    VLMK_HOST_DEVICE VLMK_INLINE bool halved() const { return upper != nullptr; }
    VLMK_HOST_DEVICE VLMK_INLINE bool exist() const { return whole != nullptr || halved(); }
    VLMK_HOST_DEVICE VLMK_INLINE FeatureSums from(int64_t row) const {
        const int64_t at = row * stride;
        return halved() ? FeatureSums{nullptr, upper + at, lower + at, stride}
                        : FeatureSums{whole + at, {}, {}, stride};
    }
};

struct Chunk {
    int first_row = 0, rows = 0, first_column = 0, columns = 0;
    bool first_rows = true, last_rows = true;        // whether no chunk has these columns before, or after
    bool first_columns = true, last_columns = true;  // whether no chunk has these rows before, or after

    int image_access = 0, text_access = 0;  // bytes that kernels can load at once
    Partials row_partials, column_partials;

    // Of gradients. G has rows and columns padded to tiles, with zeros; null: none is wanted.
    void* gradient = nullptr;
    int gradient_stride = 0;
    float* diagonal = nullptr;     // (image.count), G of the positive pairs, which the matrix lacks; null: it has them
    const Range* range = nullptr;  // null: 1
    // Sums of G times the other side's features: of the chunk's rows, and of all columns.
    FeatureSums image_sum, text_sum;
};

template <class Problem>
struct ChunkLaunch {
    Problem problem;
    Chunk chunk;
};
using InfoNceLaunch = ChunkLaunch<InfoNceProblem>;
using SigmoidLaunch = ChunkLaunch<SigmoidProblem>;
using ProductsLaunch = ChunkLaunch<ContrastiveProblem>;

// The largest magnitudes of weights and of both sides' factors become a Range.
struct RangeLaunch {
    static constexpr int kWeights = 6;
    const float* weights[kWeights] = {};
    int64_t weight_counts[kWeights] = {};
    const float* factors[2] = {};
    int64_t factor_counts[2] = {};
    Range* range = nullptr;
};

enum class Side : int { image, text };

// From sums to gradients of `rows` rows, from `first` on. Without sums the gradient is 0.
struct FinishLaunch {
    ContrastiveProblem problem;
    Side side = Side::image;
    FeatureSums sum;
    int first = 0, rows = 0;
    const float* diagonal = nullptr;
    const Range* range = nullptr;
};

}  // namespace vlmk
