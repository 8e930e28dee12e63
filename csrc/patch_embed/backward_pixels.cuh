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
          span_(launch.tiling.span(static_cast<int>(blockIdx.x) % launch.column_blocks)),
          first_(static_cast<int>(blockIdx.x) / launch.column_blocks * launch.block_rows),
          infos_(reinterpret_cast<PatchRow*>(shared() + kTileBytes)),
          norms_(reinterpret_cast<PatchNorm*>(infos_ + kPatchRows)) {}

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
        find_patches(p_, first_, rows, sizeof(T), infos_);
        find_norms(p_, norms_);
        clear_columns(weights, kStep, launch_.tiling.columns(span_), columns);

        typename Shape::Sum sum;
#pragma unroll 1
        for (int e = 0; e < static_cast<int>(p_.embed); e += kStep) {
            __syncthreads();  // the tiles before have been read
            weight.load(span_, e);
            gradients.load(rows, live, e, infos_);
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
    VLMK_DEVICE static char* shared() {
        extern __shared__ __align__(16) char memory[];
        return memory;
    }

    // In the order of memory.
    template <int kVector, int kChannels>
    VLMK_DEVICE void write(const Staged& staged, int live) const {
        const PixelWalk<kVector, sizeof(T)> walk(launch_.tiling, span_, launch_.block_rows, infos_);
        const int warps = static_cast<int>(blockDim.x) / kWarpLanes, norm_step = norms_differ(p_) ? 1 : 0;
        const int inside = kChannels == 0 ? launch_.tiling.channels : kChannels;
#pragma unroll 1
        for (int turn = static_cast<int>(threadIdx.x) / kWarpLanes; turn < walk.turns(); turn += warps) {
            const PixelPlace at = walk.place(turn);
            if (at.row >= live) continue;
            float values[kVector];
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                const int along = (at.number + i) / inside, within = at.number + i - along * inside;
                float value[1];
                staged.load(at.row, within * span_.positions() + walk.position(at.run, along), value);
                values[i] = value[0] * norms_[(kChannels == 1 ? at.channel : within) * norm_step].scale;
            }
            Packed<T, kVector>::from_floats(values).store(static_cast<char*>(p_.grad_pixels) + at.bytes);
        }
    }

    const PatchLaunch& launch_;
    const PatchEmbedProblem& p_;
    const TileSpan span_;
    const int first_;
    PatchRow* const infos_;
    PatchNorm* const norms_;
};

}  // namespace vlmk::gpu
