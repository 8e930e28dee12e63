// InfoNCE backward: with the gradients of the statistics,
//     G_ij = dlse_i P_ij + dlse'_j Q_ij + [positive] (dtarget_i / k_i + dtarget'_j / k'_j) + dmean_i / N + dmean'_j /
//     M,  P_ij = exp(z_ij - lse_i),  Q_ij = exp(z_ij - lse'_j).
#pragma once
#include "contrastive/gradient.cuh"

namespace vlmk::gpu {

template <class T>
class InfoNce {
    static constexpr int kSide = tile_side(sizeof(T));
    static_assert(kSide <= kLossThreads, "a thread for each row and each column of a tile");

  public:
    using Launch = InfoNceLaunch;
    static constexpr int kPlanes = 1;  // no loss, and a gradient of the bias that is 0

    // What a row, or a column, adds: lse (+inf where it has none, so that exponentials are 0), dlse, dmean / N and
    // dtarget / k.
    using Row = float4;

    VLMK_DEVICE InfoNce(const InfoNceLaunch& launch, const LogitsTile<T>& tile, uint32_t shared)
        : shared_(shared), scale_(*launch.problem.scale) {
        const InfoNceProblem& p = launch.problem;
        const int thread = static_cast<int>(threadIdx.x);
        if (thread >= kSide) return;
        store_shared(address(thread), line(p.rows, p.grad_rows, launch.chunk.first_row + tile.tile_row() + thread,
                                           p.image.count, p.text.count));
        store_shared(address(kSide + thread),
                     line(p.columns, p.grad_columns, launch.chunk.first_column + tile.tile_column() + thread,
                          p.text.count, p.image.count));
    }

    VLMK_DEVICE float4 row(int row) const { return load_shared<float4>(address(row)); }
    VLMK_DEVICE float4 column(int column) const { return load_shared<float4>(address(kSide + column)); }

    VLMK_DEVICE LogitGradient of(const float4& row, const float4& column, float dot, bool positive) const {
        const float z = scale_ * dot;
        float g = exp2((z - row.x) * kLog2E) * row.y + exp2((z - column.x) * kLog2E) * column.y + (row.z + column.z);
        if (positive) g += row.w + column.w;
        return {g, 0.0f};
    }

  private:
    VLMK_DEVICE uint32_t address(int line) const { return shared_ + line * static_cast<int>(sizeof(float4)); }

    VLMK_DEVICE static float4 line(const Statistics& of, const Statistics& gradient, int64_t at, int64_t count,
                                   int64_t others) {
        if (at >= count) return {infinity(), 0.0f, 0.0f, 0.0f};
        const float lse = of.logsumexp[at], positives = of.positives[at];
        return {lse == -infinity() ? infinity() : lse, gradient.logsumexp[at],
                gradient.mean[at] / static_cast<float>(others),
                positives > 0.0f ? gradient.target[at] / positives : 0.0f};
    }

    uint32_t shared_;
    float scale_;
};

}  // namespace vlmk::gpu
