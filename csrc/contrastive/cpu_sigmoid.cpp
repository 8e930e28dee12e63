// The sigmoid loss on the CPU: rows do not depend on each other, so loss and gradients come from one walk over the
// logits.
//     loss_i = sum_j softplus(z_ij) - sum over positives z_ij,   G_ij = weight_i (sigmoid(z_ij) - [positive]).
#include "contrastive/tiles.h"
#include "core/dispatch.h"

namespace vlmk::VLMK_ISA {
namespace {

// Logits -> sigmoid in place, returns the sums of softplus and of sigmoid(z) (z - bias). One exp(-|z|) serves both
// functions; log1p keeps the loss of confident negatives.
struct RowSums {
    float loss, dot;
};

RowSums sigmoid_row(float* z, int64_t columns, float bias, bool want_loss) {
    Vec sum{}, dots{};
    float tail = 0.0f, dot_tail = 0.0f;
    for (int64_t j = 0; j < columns; j += kLanes) {
        const Vec v = load(z + j);
        const Vec e = exp_nonpositive((Vec)((IntVec)v | (int32_t)0x80000000));
        const Vec inverse = splat(1.0f) / (splat(1.0f) + e);
        const Vec sigmoid = select((IntVec)(v >= splat(0.0f)), inverse, e * inverse);
        store(z + j, sigmoid);
        const Vec softplus = want_loss ? max(splat(0.0f), v) + log1p(e) : splat(0.0f);
        if (j + kLanes <= columns) {
            sum += softplus;
            dots += sigmoid * (v - splat(bias));
        } else {
            for (int64_t l = 0; j + l < columns; ++l) {
                tail += softplus[l];
                dot_tail += sigmoid[l] * (v[l] - bias);
            }
        }
    }
    return {reduce_add(sum) + tail, reduce_add(dots) + dot_tail};
}

template <class T>
void run(const SigmoidProblem& p) {
    const bool gradients = p.wants_gradients();
    const float bias = bias_of(p);
    if (p.row_loss != nullptr)
        for (int64_t i = 0; i < p.image.count; ++i) p.row_loss[i] = 0.0;
    if (p.grad_bias != nullptr && p.image.count > 0) fill_zero(p.grad_bias, p.image.count);
    const auto weight_of = [&](int64_t row) { return p.row_weight == nullptr ? 1.0f : p.row_weight[row]; };
    walk<T>(
        p, gradients,
        [&](const Strip& s) {
            for_each_positive(p, s, [&](int64_t r, int64_t j) {
                const int64_t row = s.first_row + r;
                if (p.row_loss != nullptr) p.row_loss[row] -= s.row(r)[j];
                if (gradients) p.scale_dot[row] -= weight_of(row) * (s.row(r)[j] - bias);
            });
            for (int64_t r = 0; r < s.rows; ++r) {
                const int64_t row = s.first_row + r;
                const RowSums sums = sigmoid_row(s.row(r), s.columns, bias, p.row_loss != nullptr);
                if (p.row_loss != nullptr) p.row_loss[row] += sums.loss;
                if (gradients) p.scale_dot[row] += weight_of(row) * sums.dot;
            }
            if (!gradients) return;
            for_each_positive(p, s, [&](int64_t r, int64_t j) { s.row(r)[j] -= 1.0f; });
            for (int64_t r = 0; r < s.rows; ++r) {
                const float weight = weight_of(s.first_row + r);
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
    with_float_type(problem.dtype, [&](auto number) { run<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
