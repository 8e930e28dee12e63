// The sigmoid loss on the CPU: rows do not depend on each other, so loss and gradients come from one walk over the
// logits.
//     loss_i = sum_j softplus(z_ij) - sum over positives z_ij,   G_ij = weight_i (sigmoid(z_ij) - [positive]).
#include "contrastive/tiles.h"

namespace vlmk::VLMK_ISA {
namespace {

// Logits -> sigmoid in place, returns the sum of softplus. One exp(-|z|) serves both; log1p keeps the loss of confident
// negatives.
float sigmoid_row(float* z, int64_t columns, bool want_loss) {
    Vec sum{};
    float tail = 0.0f;
    for (int64_t j = 0; j < columns; j += kLanes) {
        const Vec v = load(z + j);
        const Vec e = exp((Vec)((IntVec)v | (int32_t)0x80000000));
        const Vec inverse = splat(1.0f) / (splat(1.0f) + e);
        store(z + j, select((IntVec)(v >= splat(0.0f)), inverse, e * inverse));
        if (!want_loss) continue;
        const Vec softplus = max(splat(0.0f), v) + log1p(e);
        if (j + kLanes <= columns)
            sum += softplus;
        else
            for (int64_t l = 0; j + l < columns; ++l) tail += softplus[l];
    }
    return reduce_add(sum) + tail;
}

template <class T>
void run(const SigmoidProblem& p) {
    const bool gradients = p.image.grad != nullptr;
    if (p.row_loss != nullptr)
        for (int64_t i = 0; i < p.image.count; ++i) p.row_loss[i] = 0.0;
    if (p.grad_bias != nullptr && p.image.count > 0) fill_zero(p.grad_bias, p.image.count);
    walk<T>(
        p, gradients,
        [&](const Strip& s) {
            if (p.row_loss != nullptr)
                for_each_positive(p, s, [&](int64_t r, int64_t j) { p.row_loss[s.first_row + r] -= s.row(r)[j]; });
            for (int64_t r = 0; r < s.rows; ++r) {
                const float loss = sigmoid_row(s.row(r), s.columns, p.row_loss != nullptr);
                if (p.row_loss != nullptr) p.row_loss[s.first_row + r] += loss;
            }
            if (!gradients) return;
            for_each_positive(p, s, [&](int64_t r, int64_t j) { s.row(r)[j] -= 1.0f; });
            for (int64_t r = 0; r < s.rows; ++r) {
                const float weight = p.row_weight == nullptr ? 1.0f : p.row_weight[s.first_row + r];
                float* g = s.row(r);
                Vec sum{};
                float tail = 0.0f;
                for (int64_t j = 0; j < s.padded(); j += kLanes) {
                    const Vec v = load(g + j) * splat(weight);
                    store(g + j, v);
                    if (j + kLanes <= s.columns) sum += v;
                }
                for (int64_t j = s.columns / kLanes * kLanes; j < s.columns; ++j) tail += g[j];
                p.grad_bias[s.first_row + r] += reduce_add(sum) + tail;
                apply_factors(p, s, r);
            }
            clear_padding(s);
        },
        [](int64_t, int64_t, int64_t) {});
}

}  // namespace

void sigmoid_loss(const SigmoidProblem& problem) {
    switch (problem.dtype) {
        case DType::bf16:
            return run<bf16>(problem);
        case DType::f16:
            return run<f16>(problem);
        default:
            return run<float>(problem);
    }
}

}  // namespace vlmk::VLMK_ISA
