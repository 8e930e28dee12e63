// The sigmoid loss: rows do not depend on each other, so loss and gradient come from one look at a logit.
//     loss_ij = softplus(-z_ij) for positive pairs, softplus(z_ij) for others,   G_ij = weight_i d loss_ij / d z_ij.
#pragma once
#include "contrastive/gradient.cuh"

namespace vlmk::gpu {

template <class T>
class Sigmoid {
  public:
    using Launch = SigmoidLaunch;
    static constexpr int kPlanes = kRowPlanes;

    VLMK_DEVICE Sigmoid(const SigmoidLaunch& launch, const LogitsTile<T>& tile, uint32_t)
        : weights_(launch.problem.row_weight),
          first_row_(launch.chunk.first_row + tile.tile_row()),
          last_row_(static_cast<int>(launch.problem.image.count) - 1),
          scale_(*launch.problem.scale),
          bias_(launch.problem.bias == nullptr ? 0.0f : *launch.problem.bias) {}

    using Row = float;  // its weight
    struct Column {};

    VLMK_DEVICE float row(int row) const {
        return weights_ == nullptr ? 1.0f : weights_[min(first_row_ + row, last_row_)];
    }

    VLMK_DEVICE Column column(int) const { return {}; }

    // One exp(-|z|) serves both functions; log1p keeps the loss of confident negatives.
    VLMK_DEVICE LogitGradient of(float weight, Column, float dot, bool positive) const {
        const float z = scale_ * dot + bias_, y = positive ? -z : z;
        const float e = exp2(-fabsf(y) * kLog2E), inverse = reciprocal(1.0f + e);
        const float sigmoid = y >= 0.0f ? inverse : e * inverse;
        return {positive ? -weight * sigmoid : weight * sigmoid, fmaxf(y, 0.0f) + log1p_up_to_1(e)};
    }

  private:
    const float* weights_;
    int first_row_, last_row_;
    float scale_, bias_;
};

}  // namespace vlmk::gpu
