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
    using Line = float4;

    VLMK_DEVICE InfoNce(const InfoNceLaunch& launch, const LogitsTile<T>& tile, uint32_t shared)
        : rows_(shared),
          columns_(shared + kSide * static_cast<int>(sizeof(Line)) +
                   (tile.warp_column() + lane_index() % 4 * 2) * static_cast<int>(sizeof(Line))),
          first_column_(tile.warp_column() + lane_index() % 4 * 2),
          scale_(*launch.problem.scale) {
        const InfoNceProblem& p = launch.problem;
        const int thread = static_cast<int>(threadIdx.x), at = thread * static_cast<int>(sizeof(Line));
        if (thread >= kSide) return;
        store_shared(shared + at, line(p.rows, p.grad_rows, launch.chunk.first_row + tile.tile_row() + thread,
                                       p.image.count, p.text.count));
        store_shared(shared + kSide * static_cast<int>(sizeof(Line)) + at,
                     line(p.columns, p.grad_columns, launch.chunk.first_column + tile.tile_column() + thread,
                          p.text.count, p.image.count));
    }

    VLMK_DEVICE Line row(int row) const { return load_shared<Line>(rows_ + row * static_cast<int>(sizeof(Line))); }

    VLMK_DEVICE LogitGradient of(const Line& row, int column, float dot, bool positive) const {
        const Line other = load_shared<Line>(columns_ + (column - first_column_) * static_cast<int>(sizeof(Line)));
        const float z = scale_ * dot;
        float g = exp2((z - row.x) * kLog2E) * row.y + exp2((z - other.x) * kLog2E) * other.y + (row.z + other.z);
        if (positive) g += row.w + other.w;
        return {g, 0.0f};
    }

  private:
    VLMK_DEVICE static Line line(const Statistics& of, const Statistics& gradient, int64_t at, int64_t count,
                                 int64_t others) {
        if (at >= count) return {infinity(), 0.0f, 0.0f, 0.0f};
        const float lse = of.logsumexp[at], positives = of.positives[at];
        return {lse == -infinity() ? infinity() : lse, gradient.logsumexp[at],
                gradient.mean[at] / static_cast<float>(others),
                positives > 0.0f ? gradient.target[at] / positives : 0.0f};
    }

    uint32_t rows_, columns_;
    int first_column_;
    float scale_;
};

}  // namespace vlmk::gpu
