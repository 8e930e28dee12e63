// A tile of the matrix of logits: the products of its rows and columns, spread over the sums of four warps, and where
// each of a lane's sums is.
#pragma once
#include "contrastive/gpu_tiles.h"
#include "contrastive/launch.h"
#include "gpu/exp2.cuh"
#include "gpu/tile_product.cuh"
#include "gpu/window_copy.cuh"

namespace vlmk::gpu {

template <class T>
VLMK_DEVICE Matrix features_of(const Features& f, int64_t dim, int access) {
    return {static_cast<const char*>(f.data), static_cast<int>(f.count), static_cast<int>(dim * sizeof(T)),
            static_cast<int>(f.row_stride * sizeof(T)), access};
}

template <class T>
class LogitsTile {
  public:
    static constexpr int kSide = tile_side(sizeof(T)), kStrip = strip_side(sizeof(T)), kThreads = kLossThreads;
    static constexpr int kM = kStrip / 16, kN = kStrip / 8;  // blocks of rows and columns of a warp's strip
    using Tile = SharedTile<T, kSide, stage_depth(sizeof(T))>;
    using Sums = TileSum<kM, kN>;
    static constexpr int kStageBytes = 2 * Tile::kBytes;
    static_assert(2 * kStageBytes == logits_shared_bytes(sizeof(T)), "the plan and the kernel agree on shared memory");

    VLMK_DEVICE LogitsTile(const ContrastiveProblem& problem, const Chunk& chunk) : p_(problem), chunk_(chunk) {
        const int tiles = (chunk.columns + kSide - 1) / kSide;
        tile_row_ = static_cast<int>(blockIdx.x) / tiles * kSide;
        tile_column_ = static_cast<int>(blockIdx.x) % tiles * kSide;
        extern __shared__ __align__(16) char shared[];
        base_ = shared_address(shared);
    }

    // <x_i, y_j>, each times its factor; 0 past the ends.
    VLMK_DEVICE void multiply(Sums& dots) const {
        const Matrix image = features_of<T>(p_.image, p_.dim, chunk_.image_access),
                     text = features_of<T>(p_.text, p_.dim, chunk_.text_access);
        const int row = chunk_.first_row + tile_row_, column = chunk_.first_column + tile_column_;
        const int stages = (image.row_bytes + Tile::kRowBytes - 1) / Tile::kRowBytes;
        const TileView<Tile> x(Tile(0), warp_row()), y(Tile(Tile::kBytes), warp_column());
        const auto use = [&](uint32_t stage) {
            add_product_transposed(dots, x + static_cast<int>(stage), y + static_cast<int>(stage));
        };
        using Stream = WindowStream<Tile, kThreads>;
        if (Stream::takes(image) && Stream::takes(text) && row + kSide <= image.rows && column + kSide <= text.rows &&
            image.row_bytes == stages * Tile::kRowBytes) {
            Stream rows(image, row, 0), columns(text, column, 0);
            const auto start = [&](uint32_t stage) {
                rows.start(stage);
                columns.start(stage + Tile::kBytes);
                rows.advance(Tile::kRowBytes);
                columns.advance(Tile::kRowBytes);
            };
            in_two_stages<kStageBytes>(base_, stages, start, use);
        } else {
            int byte = 0;
            const auto start = [&](uint32_t stage) {
                WindowCopy<Tile, kThreads>::start(Tile(stage), image, row, byte);
                WindowCopy<Tile, kThreads>::start(Tile(stage + Tile::kBytes), text, column, byte);
                byte += Tile::kRowBytes;
            };
            in_two_stages<kStageBytes>(base_, stages, start, use);
        }
        if (p_.image.factor != nullptr) apply_factors(dots);
    }

    VLMK_DEVICE void apply_factors(Sums& values) const {
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float factor = p_.text.factor[min(column(n, e % 2), static_cast<int>(p_.text.count) - 1)];
#pragma unroll
                for (int m = 0; m < kM; ++m)
                    values[m][n].v[e] *=
                        factor * p_.image.factor[min(row(m, e / 2), static_cast<int>(p_.image.count) - 1)];
            }
    }

    // Where the warp's strip starts in the tile, and the lane's rows and columns in the matrix.
    VLMK_DEVICE int warp_row() const { return static_cast<int>(threadIdx.x) / kWarpLanes / 2 * kStrip; }
    VLMK_DEVICE int warp_column() const { return static_cast<int>(threadIdx.x) / kWarpLanes % 2 * kStrip; }
    VLMK_DEVICE int row(int m, int half) const {
        return chunk_.first_row + tile_row_ + warp_row() + 16 * m + Accumulator<>::row(2 * half);
    }
    VLMK_DEVICE int column(int n, int odd) const {
        return chunk_.first_column + tile_column_ + warp_column() + 8 * n + Accumulator<>::column(odd);
    }
    VLMK_DEVICE int tile_row() const { return tile_row_; }  // in the chunk
    VLMK_DEVICE int tile_column() const { return tile_column_; }
    VLMK_DEVICE uint32_t shared() const { return base_; }

    VLMK_DEVICE bool has_row(int row) const { return row < static_cast<int>(p_.image.count); }
    VLMK_DEVICE bool has_column(int column) const { return column < static_cast<int>(p_.text.count); }
    // Whether all of the warp's strip is in the matrix.
    VLMK_DEVICE bool full() const {
        return has_row(chunk_.first_row + tile_row_ + warp_row() + kStrip - 1) &&
               has_column(chunk_.first_column + tile_column_ + warp_column() + kStrip - 1);
    }

    // --- positives: pairs of equal keys ---

    VLMK_DEVICE int64_t row_key(int row) const {
        return p_.labels == Labels::groups ? p_.image.group[min(row, static_cast<int>(p_.image.count) - 1)]
                                           : row + p_.label_offset;
    }
    VLMK_DEVICE int64_t column_key(int column) const {
        return p_.labels == Labels::groups ? p_.text.group[min(column, static_cast<int>(p_.text.count) - 1)] : column;
    }
    // Whether there may be some in the warp's strip.
    VLMK_DEVICE bool some_positives() const {
        if (p_.labels != Labels::diagonal) return p_.labels == Labels::groups;
        const int64_t ahead = chunk_.first_column + tile_column_ + warp_column() -
                              (chunk_.first_row + tile_row_ + warp_row() + p_.label_offset);
        return -kStrip < ahead && ahead < kStrip;
    }

  private:
    const ContrastiveProblem& p_;
    const Chunk& chunk_;
    int tile_row_, tile_column_;
    uint32_t base_;
};

}  // namespace vlmk::gpu
