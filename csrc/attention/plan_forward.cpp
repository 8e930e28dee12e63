#include "attention/forward_launch.h"
#include "attention/plan.h"
#include "attention/tiles.h"
#include "core/error.h"

namespace vlmk {
namespace {

// The smallest tile that takes a head_dim.
const ForwardTile& choose_tile(int64_t head_dim) {
    for (const ForwardTile& tile : kForwardTiles)
        if (tile.exact ? tile.head_dim == head_dim : head_dim <= (tile.head_dim == 64 ? 56 : tile.head_dim))
            return tile;
    throw std::logic_error("no tile takes head_dim " + std::to_string(head_dim));
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a block for `rows` rows of a head: as few blocks as they need, the rows dealt out evenly, whole warps.
int64_t block_rows(const ForwardTile& tile, int64_t rows) {
    const int64_t warps = ceil_divide(rows, tile.warp_rows());
    const int64_t blocks = ceil_divide(warps, kForwardWarps);
    return ceil_divide(warps, blocks) * tile.warp_rows();
}

}  // namespace

std::vector<gpu::LaunchPlan> plan_attention_forward(const AttentionProblem& problem) {
    const bool packed = problem.cu_seqlens_q != nullptr;
    if ((!packed && problem.batch == 0) || problem.heads_q == 0 || problem.seqlen_q == 0) return {};
    ForwardLaunch launch;
    launch.problem = prepare_for_gpu(problem);
    const AttentionProblem& p = launch.problem;
    const ForwardTile& tile = choose_tile(p.head_dim);
    constexpr int64_t element_bytes = 2;
    constexpr float kLog2E = 1.44269504088896341f;
    launch.factor = p.scale * kLog2E;
    launch.key_stride = static_cast<int>(p.key.row_stride * element_bytes);
    launch.value_stride = static_cast<int>(p.value.row_stride * element_bytes);
    const int64_t group = p.heads_q / p.heads_k;

    int64_t blocks;
    if (packed) {
        // Sequences are as long as they are on average, as far as is known here; the rows behind the last one are one
        // more.
        const int64_t sequences = p.batch + 1;
        launch.block_rows = static_cast<int>(block_rows(tile, ceil_divide(p.seqlen_q, sequences)));
        launch.row_blocks = static_cast<int>(p.seqlen_q / launch.block_rows + sequences);
        blocks = launch.row_blocks * p.heads_q;
    } else {
        // Heads of a group go through their keys together where one alone has no full block of rows.
        if (group > 1 && p.seqlen_q < tile.rows()) launch.heads_together = static_cast<int>(group);
        const int64_t rows = p.seqlen_q * launch.heads_together;
        launch.block_rows = static_cast<int>(block_rows(tile, rows));
        launch.row_blocks = static_cast<int>(ceil_divide(rows, launch.block_rows));
        blocks = launch.row_blocks * (p.heads_q / launch.heads_together) * p.batch;
    }

    gpu::LaunchPlan plan;
    plan.image = std::string("attention/forward_") + name(p.dtype);
    plan.kernel = std::string("attention_forward_") + name(p.dtype) + "_" + std::to_string(tile.head_dim) +
                  (tile.exact ? "" : "_padded");
    plan.grid = gpu::linear_grid(blocks);
    plan.block = {kForwardThreads, 1, 1};
    plan.shared_bytes = static_cast<uint32_t>(tile.shared_bytes());
    plan.parameters = gpu::parameter_bytes(launch);
    return {plan};
}

}  // namespace vlmk
