// Gradient of the weight: dW = sum over patches of dOut^T x, with x gathered and normalised as in the forward pass. A
// block has 128 rows of the embedding and one tile of numbers of a patch, and goes through its part of the patches.
// Several parts leave sums in the workspace.
#pragma once
#include "patch_embed/block_sum.cuh"
#include "patch_embed/number_tile.cuh"
#include "patch_embed/pixel_tile.cuh"

namespace vlmk::gpu {

template <class T, class Pixel>
class PatchWeightGradient {
    using Shape = BlockShape<T>;
    using Patches = SharedTile<T, kPatchDepth, Shape::kColumns>;
    using Grads = SharedTile<T, kPatchDepth, kPatchGradientRows>;
    using Staged = StagedSums<T>;
    static_assert(Patches::kBytes + Grads::kBytes == patch_weight_gradient_bytes(sizeof(T)) &&
                      Staged::kBytes == patch_sum_bytes(sizeof(T)),
                  "the plan and the kernel agree on shared memory");
    // fp32 sums are short, so that their parts lose nothing.
    static constexpr int kStep = sizeof(T) == 2 ? 16 : 32;

  public:
    VLMK_DEVICE explicit PatchWeightGradient(const PatchLaunch& launch)
        : launch_(launch),
          p_(launch.problem),
          span_(launch.tiling.span(column_block())),
          first_row_(static_cast<int>(blockIdx.x) / launch.column_blocks % launch.row_blocks * kPatchGradientRows),
          part_(static_cast<int>(blockIdx.x) / launch.column_blocks / launch.row_blocks) {}

    VLMK_DEVICE void run() const {
        PatchTables& tables = *reinterpret_cast<PatchTables*>(shared() + launch_.table_offset);
        const uint32_t base = shared_address(shared());
        const Patches patches(base);
        const Grads grads(base + Patches::kBytes);
        const PixelTile<Patches, Pixel> pixels(launch_, patches, base + Patches::kBytes + Grads::kBytes, tables);
        const GradientTile<Grads> gradients(launch_, grads);
        const TileView<Grads> left(grads, 0, Shape::warp_row());
        const TileView<Patches> right(patches, 0, Shape::warp_column());

        const int total = static_cast<int>(p_.batch * p_.source.patches());
        const int begin = part_ * launch_.part_patches, end = min(begin + launch_.part_patches, total);
        const int columns = launch_.tiling.rounded_columns(span_);
        find_norms(p_, tables);
        __syncthreads();
        find_tile(launch_, column_block(), sizeof(Pixel), 0, tables);
        clear_columns(patches, kPatchDepth, launch_.tiling.columns(span_), columns);
        typename Shape::Sum sum;
        const auto set_from = [&](int first, int half) {
            return PatchSet{first, kPatchDepth, min(kPatchDepth, end - first), half};
        };
        const auto find = [&](const PatchSet& set) {
            find_patches(p_, set.first, set.rows, sizeof(Pixel), set.begin, tables);
            find_groups(launch_, set, tables);
        };
        if (begin < end) find(set_from(begin, 0));
        int half = 0;
        __syncthreads();
        if (begin < end) pixels.start(0, set_from(begin, half));
#pragma unroll 1
        for (int first = begin; first < end; first += kPatchDepth) {
            __syncthreads();  // the tiles before have been read
            const PatchSet set = set_from(first, half);
            const int next = first + kPatchDepth;
            half = kPatchDepth - half;
            gradients.load(kPatchDepth, set.live, first_row_, tables.tokens + set.begin);
            commit_copies();
            if (next < end) find(set_from(next, half));
            pixels.finish(0, set);
            commit_copies();
            wait_copies<0>();
            __syncthreads();
            if (next < end) pixels.start(0, set_from(next, half));
#pragma unroll 1
            for (int k = 0; k < kPatchDepth; k += kStep)
                add_product(sum, load_left_rows_transposed<Shape::kRowBlocks, kStep / 8>(left + Grads::offset(k, 0)),
                            right + Patches::offset(k, 0), columns - Shape::warp_column());
        }
        write(sum);
    }

  private:
    VLMK_DEVICE int column_block() const { return static_cast<int>(blockIdx.x) % launch_.column_blocks; }
    VLMK_DEVICE static char* shared() {
        extern __shared__ __align__(16) char memory[];
        return memory;
    }

    // A warp a row, whose lanes keep their columns.
    VLMK_DEVICE void write(const typename Shape::Sum& sum) const {
        const Staged staged(shared_address(shared()));
        staged.store(sum);
        constexpr int kEach = Shape::kColumns / kWarpLanes;
        const PatchTiling& t = launch_.tiling;
        const int columns = t.columns(span_), apart = t.positions - span_.positions();
        const Divisor of_channel(span_.positions());
        int at[kEach];  // numbers from the start of a row
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const int column = lane_index() + kWarpLanes * i;
            at[i] = t.first_position(span_) + column + of_channel(column) * apart;
        }
        const int rows = min(kPatchGradientRows, static_cast<int>(p_.embed) - first_row_);
        const int elements = t.positions * t.channels;
        float* const parts = p_.workspace + part_ * p_.embed * elements;
#pragma unroll 1
        for (int row = static_cast<int>(threadIdx.x) / kWarpLanes; row < rows; row += kPatchThreads / kWarpLanes) {
            const int64_t start = int64_t{first_row_ + row} * elements;
#pragma unroll
            for (int i = 0; i < kEach; ++i) {
                const int column = lane_index() + kWarpLanes * i;
                if (column >= columns) continue;
                float value[1];
                staged.load(row, column, value);
                if (launch_.parts > 1)
                    parts[start + at[i]] = value[0];
                else
                    static_cast<T*>(p_.grad_weight)[start + at[i]] = from_float<T>(value[0]);
            }
        }
    }

    const PatchLaunch& launch_;
    const PatchEmbedProblem& p_;
    const TileSpan span_;
    const int first_row_, part_;
};

// The parts' sum, always in the same order.
template <class T>
VLMK_DEVICE void add_weight_parts(const PatchLaunch& launch) {
    const PatchEmbedProblem& p = launch.problem;
    const int64_t count = p.embed * p.source.elements(), i = int64_t{blockIdx.x} * kPartThreads + threadIdx.x;
    if (i >= count) return;
    float sum = 0.0f;
#pragma unroll 4
    for (int part = 0; part < launch.parts; ++part) sum += p.workspace[part * count + i];
    static_cast<T*>(p.grad_weight)[i] = from_float<T>(sum);
}

}  // namespace vlmk::gpu
