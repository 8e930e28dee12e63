// Gradient of the pixels: dOut W, scaled as the pixels were, written to where they are. A block has up to 128 patches
// and one tile of their numbers; patches do not overlap, so that each pixel is written once.
#pragma once
#include "patch_embed/block_sum.cuh"
#include "patch_embed/number_tile.cuh"
#include "patch_embed/pixel_tile.cuh"

namespace vlmk::gpu {

template <class T>
class PatchPixelGradient {
    using Shape = BlockShape<T>;
    static constexpr int kStep = patch_embed_step(sizeof(T));  // of the embedding
    using Grads = SharedTile<T, kPatchRows, kStep>;
    using Weights = SharedTile<T, kStep, Shape::kColumns>;
    using Staged = StagedSums<T>;
    static constexpr int kTileBytes = patch_pixel_gradient_bytes(sizeof(T));
    static_assert(Grads::kBytes + Weights::kBytes <= kTileBytes && Staged::kBytes <= kTileBytes, "both fit");
    static constexpr int kDepth = sizeof(T) == 2 ? 16 : 32;  // of one product

  public:
    VLMK_DEVICE explicit PatchPixelGradient(const PatchLaunch& launch)
        : launch_(launch),
          p_(launch.problem),
          span_(launch.tiling.span(column_block())),
          first_(static_cast<int>(blockIdx.x) / launch.column_blocks * launch.block_rows),
          tables_(*reinterpret_cast<PatchTables*>(shared() + launch.table_offset)) {}

    VLMK_DEVICE void run() const {
        const int rows = launch_.block_rows;
        const int live = min(rows, static_cast<int>(p_.batch * p_.source.patches()) - first_);
        const uint32_t base = shared_address(shared());
        const Grads grads(base);
        const Weights weights(base + Grads::kBytes);
        const GradientTile<Grads> gradients(launch_, grads);
        const WeightTile<true, Weights> weight(launch_, weights);
        const TileView<Grads> left(grads, Shape::warp_row());
        const TileView<Weights> right(weights, 0, Shape::warp_column());
        const int columns = launch_.tiling.rounded_columns(span_);
        find_patches(p_, first_, rows, sizeof(T), 0, tables_);
        find_norms(p_, tables_);
        __syncthreads();
        find_tile(launch_, column_block(), sizeof(T), 0, tables_);
        clear_columns(weights, kStep, launch_.tiling.columns(span_), columns);

        typename Shape::Sum sum;
#pragma unroll 1
        for (int e = 0; e < static_cast<int>(p_.embed); e += kStep) {
            __syncthreads();  // the tiles before have been read
            weight.load(span_, e);
            gradients.load(rows, live, e, tables_.tokens);
            commit_copies();
            wait_copies<0>();
            __syncthreads();
#pragma unroll 1
            for (int k = 0; k < kStep; k += kDepth)
                add_product(sum, load_left_rows<Shape::kRowBlocks, kDepth / 8>(left + Grads::offset(0, k)),
                            right + Weights::offset(k, 0), columns - Shape::warp_column());
        }
        const Staged staged(base);
        staged.store(sum);
        with_access<sizeof(T)>(launch_.tiling, [&](auto vector, auto channels) {
            write<decltype(vector)::value, decltype(channels)::value>(staged, live);
        });
    }

  private:
    VLMK_DEVICE int column_block() const { return static_cast<int>(blockIdx.x) % launch_.column_blocks; }
    VLMK_DEVICE static char* shared() {
        extern __shared__ __align__(16) char memory[];
        return memory;
    }

    // In the order of memory.
    template <int kVector, int kChannels>
    VLMK_DEVICE void write(const Staged& staged, int live) const {
        const PatchTiling& t = launch_.tiling;
        const PixelWalk<kVector> walk(t, span_, launch_.block_rows);
        const int norm_step = norms_differ(p_) ? 1 : 0, inside = kChannels == 0 ? t.channels : kChannels;
#pragma unroll 1
        for (int turn = walk.first_turn(); turn < walk.turns(); turn += walk.turn_step()) {
            const PixelPlace at = walk.place(turn);
            if (at.row >= live) continue;
            char* to = static_cast<char*>(p_.grad_pixels) + tables_.pixels[at.row] + walk.along(t, at, sizeof(T));
#pragma unroll 1
            for (int run = walk.first_run(); run < span_.runs; run += walk.run_step()) {
                const PatchRun info = tables_.runs[0][run];
                float values[kVector];
#pragma unroll
                for (int i = 0; i < kVector; ++i) {
                    const int along = (at.number + i) / inside, within = at.number + i - along * inside;
                    float value[1];
                    staged.load(at.row, within * span_.positions() + run * span_.length + along, value);
                    values[i] = value[0] * (kChannels == 1 ? info.norm : tables_.norms[within * norm_step]).scale;
                }
                Packed<T, kVector>::from_floats(values).store(to + info.bytes);
            }
        }
    }

    const PatchLaunch& launch_;
    const PatchEmbedProblem& p_;
    const TileSpan span_;
    const int first_;
    PatchTables& tables_;
};

}  // namespace vlmk::gpu
