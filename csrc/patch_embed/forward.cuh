// Patch embedding forward: out = x W^T + bias + position, with x gathered from the pixels. A block has up to 128
// patches and 128 (fp32: 64) columns of the embedding, and goes through the numbers of a patch tile by tile: pixels
// through registers, where they are normalised and rounded, the weight by copies beside that. Blocks behind those write
// prefix tokens.
#pragma once
#include "patch_embed/block_sum.cuh"
#include "patch_embed/number_tile.cuh"
#include "patch_embed/pixel_tile.cuh"
#include "patch_embed/token_writer.cuh"

namespace vlmk::gpu {

template <class T, class Pixel>
class PatchForward {
    using Shape = BlockShape<T>;
    using Patches = SharedTile<T, kPatchRows, patch_tile_numbers(sizeof(T))>;
    using Weights = SharedTile<T, Shape::kColumns, patch_tile_numbers(sizeof(T))>;
    using Staged = StagedSums<T>;
    static_assert(Patches::kBytes + Weights::kBytes == patch_forward_bytes(sizeof(T)) &&
                      Staged::kBytes == patch_sum_bytes(sizeof(T)),
                  "the plan and the kernel agree on shared memory");

  public:
    VLMK_DEVICE explicit PatchForward(const PatchLaunch& launch)
        : launch_(launch),
          p_(launch.problem),
          tables_(*reinterpret_cast<PatchTables*>(shared() + launch.table_offset)) {}

    VLMK_DEVICE void run() const {
        const int block = static_cast<int>(blockIdx.x), patch_blocks = launch_.row_blocks * launch_.column_blocks;
        if (block < patch_blocks)
            embed_patches(block / launch_.column_blocks * launch_.block_rows,
                          block % launch_.column_blocks * Shape::kColumns);
        else
            write_prefix(block - patch_blocks);
    }

  private:
    VLMK_DEVICE static char* shared() {
        extern __shared__ __align__(16) char memory[];
        return memory;
    }

    VLMK_DEVICE void embed_patches(int first, int column) const {
        const uint32_t base = shared_address(shared());
        const int total = static_cast<int>(p_.batch * p_.source.patches());
        const PatchSet set{first, launch_.block_rows, min(launch_.block_rows, total - first), 0};
        find_patches(p_, first, launch_.block_rows, sizeof(Pixel), 0, tables_);
        find_groups(launch_, set, tables_);
        find_norms(p_, tables_);
        __syncthreads();
        find_tile(launch_, 0, sizeof(Pixel), 0, tables_);
        const Patches patches(base);
        const Weights weights(base + Patches::kBytes);
        const PixelTile<Patches, Pixel> pixels(launch_, patches, base + Patches::kBytes + Weights::kBytes, tables_);
        const WeightTile<false, Weights> weight(launch_, weights);
        const TileView<Patches> left(patches, Shape::warp_row());
        const TileView<Weights> right(weights, Shape::warp_column());

        typename Shape::Sum sum;
        const int tiles = launch_.tiling.tiles();
        int used_before = 0;
        __syncthreads();
        pixels.start(0, set);
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const TileSpan span = tables_.spans[tile % 2];
            const int used = launch_.tiling.columns(span), depth = launch_.tiling.rounded_columns(span);
            __syncthreads();  // the tile before has been read
            weight.load(span, column);
            commit_copies();
            if (tile + 1 < tiles) find_tile(launch_, tile + 1, sizeof(Pixel), (tile + 1) % 2, tables_);
            if (used < depth && used != used_before) {  // nobody has written there since
                clear_columns(patches, launch_.block_rows, used, depth);
                clear_columns(weights, Shape::kColumns, used, depth);
            }
            used_before = used;
            pixels.finish(tile % 2, set);
            commit_copies();
            wait_copies<0>();
            __syncthreads();
            if (tile + 1 < tiles) pixels.start((tile + 1) % 2, set);
            add_product_transposed(sum, left, right, depth);
        }
        write(sum, set.live, column);
    }

    VLMK_DEVICE void write(const typename Shape::Sum& sum, int live, int column) const {
        const Staged staged(shared_address(shared()));
        staged.store(sum);
        with_out<T>(launch_, [&](auto access) {
            using Access = decltype(access);
            constexpr int kAcross = Shape::kColumns / Access::kCount;
            const TokenWriter<T, Access> writer(p_);
            const int columns = static_cast<int>(p_.embed) - column, threads = static_cast<int>(blockDim.x);
#pragma unroll 1
            for (int i = static_cast<int>(threadIdx.x); i < live * kAcross; i += threads) {
                const int row = i / kAcross, at = i % kAcross * Access::kCount;
                if (at >= columns) continue;
                float values[Access::kCount];
                staged.load(row, at, values);
                writer.add_bias(values, column + at);
                writer.write(values, tables_.tokens[row], tables_.positions[row], column + at);
            }
        });
    }

    VLMK_DEVICE void write_prefix(int block) const {
        const int prefixes = static_cast<int>(p_.prefix_tokens), embed = static_cast<int>(p_.embed);
        const int first = block * kPatchPrefixRows;
        const int rows = min(kPatchPrefixRows, static_cast<int>(p_.batch) * prefixes - first);
        with_out<T>(launch_, [&](auto access) {
            using Access = decltype(access);
            const TokenWriter<T, Access> writer(p_);
            const int across = embed / Access::kCount, threads = static_cast<int>(blockDim.x);
#pragma unroll 1
            for (int i = static_cast<int>(threadIdx.x); i < rows * across; i += threads) {
                const int row = first + i / across, column = i % across * Access::kCount, prefix = row % prefixes;
                const int64_t token = p_.first_prefix_token() + prefix;
                float values[Access::kCount] = {};
                writer.add_prefix(values, prefix, column);
                writer.write(values, row / prefixes * p_.tokens() + token, static_cast<int>(p_.position_row(token)),
                             column);
            }
        });
    }

    const PatchLaunch& launch_;
    const PatchEmbedProblem& p_;
    PatchTables& tables_;
};

}  // namespace vlmk::gpu

// Kernels are named by their dtype and that of the pixels; plan.cpp makes the same names.
#define VLMK_PATCH_FORWARD_KERNEL(dtype, T, pixels, Pixel)                                         \
    extern "C" __global__ void __launch_bounds__(vlmk::kPatchThreads, 2)                           \
        patch_embed_forward_##dtype##_##pixels(const __grid_constant__ vlmk::PatchLaunch launch) { \
        vlmk::gpu::PatchForward<T, Pixel>(launch).run();                                           \
    }
