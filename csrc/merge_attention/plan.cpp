#include "merge_attention/plan.h"

#include <limits>

#include "core/error.h"
#include "merge_attention/tiles.h"

namespace vlmk {
namespace {

int64_t element_bytes(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

// Whether every row of every split starts at a multiple of `bytes`.
bool aligned(const SplitTensor& t, int64_t element, int64_t bytes) {
    bool all = reinterpret_cast<uintptr_t>(t.data) % bytes == 0 && t.split_stride * element % bytes == 0;
    for (int64_t stride : t.row_stride) all = all && stride * element % bytes == 0;
    return all;
}

const MergeTile& choose_tile(const MergeProblem& p) {
    const int64_t element = element_bytes(p.dtype), row = p.head_dim * element;
    for (const MergeTile& tile : kMergeTiles) {
        if (tile.lanes == 8 && row > kMergeShortRowBytes) continue;
        if (tile.bytes == 0) return tile;
        bool all = row % tile.bytes == 0;
        for (const SplitTensor* t : {&p.outputs, &p.out, &p.grad_out, &p.grad_outputs})
            all = all && aligned(*t, element, tile.bytes);
        if (all) return tile;
    }
    throw std::logic_error("no tile takes every row");
}

}  // namespace

gpu::LaunchPlan plan_merge_attention(const MergeProblem& p, bool backward) {
    const int64_t rows = p.row_count();
    // Kernels count rows, splits and elements of a row in 32 bits, and addresses in 64.
    if (rows > std::numeric_limits<int32_t>::max() || p.splits > std::numeric_limits<int32_t>::max() ||
        p.head_dim > std::numeric_limits<int32_t>::max() / 2)
        throw NotImplemented("merge_attention takes at most 2^31 - 1 rows and splits on a GPU, got " +
                             std::to_string(rows) + " rows: split the batch");
    const MergeTile& tile = choose_tile(p);
    const int64_t rows_per_block = kMergeThreads / tile.lanes;
    gpu::LaunchPlan plan;
    plan.image = "merge_attention/merge";
    plan.kernel = std::string("merge_") + (backward ? "backward_" : "forward_") + name(p.dtype) + "_" +
                  std::to_string(tile.lanes) + "x" + std::to_string(tile.bytes);
    plan.grid = gpu::linear_grid((rows + rows_per_block - 1) / rows_per_block);
    plan.block = {kMergeThreads, 1, 1};
    plan.parameters = gpu::parameter_bytes(p);
    return plan;
}

}  // namespace vlmk
