#include <algorithm>

#include "attention/forward_launch.h"
#include "attention/forward_tiles.h"
#include "attention/plan.h"
#include "core/error.h"

namespace vlmk {
namespace {

constexpr float kLog2E = 1.44269504088896341f;

template <size_t kCount>
const ForwardTile& first_that_takes(const ForwardTile (&tiles)[kCount], int64_t head_dim) {
    for (const ForwardTile& tile : tiles)
        if (tile.least <= head_dim && head_dim <= tile.head_dim) return tile;
    throw std::logic_error("no tile takes head_dim " + std::to_string(head_dim));
}

// The types only name tables: 16-bit elements share one.
const ForwardTile& choose_tile(const AttentionProblem& p) {
    if (p.dtype == DType::f32) return first_that_takes(ForwardTiles<float>::kTiles, p.head_dim);
    return first_that_takes(ForwardTiles<bf16>::kTiles, p.head_dim);
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a block for `rows` rows of a head: as few blocks as they need, the rows dealt out evenly, whole warps.
int64_t block_rows(const ForwardTile& tile, int64_t rows) {
    const int64_t warps = ceil_divide(rows, tile.warp_rows());
    const int64_t blocks = ceil_divide(warps, tile.warps);
    return ceil_divide(warps, blocks) * tile.warp_rows();
}

int64_t choose_splits(const AttentionProblem& p, const ForwardTile& tile, int64_t blocks) {
    if (p.cu_seqlens_q != nullptr || p.seqlen_k < kMinKeysPerQuery * p.seqlen_q) return 1;
    const int64_t wanted = kSplitBlocks / blocks, possible = ceil_divide(p.seqlen_k, tile.keys) / kMinSplitTiles;
    return std::max<int64_t>(1, std::min<int64_t>({wanted, possible, kMaxSplits}));
}

// Room for all keys of a head and their values, in whole 16, and what warps have for themselves.
int64_t resident_keys(const AttentionProblem& p) { return ceil_divide(p.seqlen_k, 16) * 16; }
int64_t resident_bytes(const AttentionProblem& p, const ForwardTile& tile) {
    return 2 * resident_keys(p) * tile.row_bytes() + tile.warps * tile.part_bytes();
}

// Two blocks share a multiprocessor, or nothing would be computed while a block's first keys come in.
constexpr int kBlocksTogether = 2;

bool can_be_resident(const AttentionProblem& p, const ForwardTile& tile, const gpu::GpuLimits& gpu) {
    constexpr int kSystemBytes = 1024;  // of every block, and of a multiprocessor
    return tile.resident() && is_plain(p) && p.cu_seqlens_q == nullptr && p.seqlen_k > 0 &&
           ceil_divide(p.seqlen_k, tile.keys) <= kMostResidentBlocks &&
           kBlocksTogether * (resident_bytes(p, tile) + kSystemBytes) <= gpu.shared_bytes + kSystemBytes;
}

bool without_rows(const AttentionProblem& p) { return partial_rows(p) == 0; }

// How a problem is cut into blocks, and how many those are.
struct Cut {
    ForwardLaunch launch;
    const ForwardTile& tile;
    int64_t blocks;
    int threads;
    bool resident = false;

    Cut(const AttentionProblem& p, const gpu::GpuLimits& gpu) : Cut(p) {
        if (launch.splits == 1 && can_be_resident(p, tile, gpu)) consider_resident(p, gpu);
    }

    // As if there were no room for all keys of a head.
    explicit Cut(const AttentionProblem& p) : tile(choose_tile(p)) {
        const int64_t group = p.heads_q / p.heads_k;
        if (p.cu_seqlens_q != nullptr) {
            // Sequences are as long as they are on average, as far as is known here; the rows behind the last one are
            // one more.
            const int64_t sequences = p.batch + 1;
            launch.block_rows = static_cast<int>(block_rows(tile, ceil_divide(p.seqlen_q, sequences)));
            launch.row_blocks = static_cast<int>(p.seqlen_q / launch.block_rows + sequences);
            blocks = launch.row_blocks * p.heads_q;
            choose_threads(ceil_divide(p.seqlen_k, sequences));
            return;
        }
        // Heads of a group go through their keys together where one alone has no full block of rows.
        if (group > 1 && p.seqlen_q < tile.rows()) launch.heads_together = static_cast<int>(group);
        const int64_t rows = p.seqlen_q * launch.heads_together;
        launch.block_rows = static_cast<int>(block_rows(tile, rows));
        launch.row_blocks = static_cast<int>(ceil_divide(rows, launch.block_rows));
        blocks = launch.row_blocks * (p.heads_q / launch.heads_together) * p.batch;
        launch.splits = static_cast<int>(choose_splits(p, tile, blocks));
        blocks *= launch.splits;
        choose_threads(p.seqlen_k);
    }

    // All keys of a head in shared memory are read once by a block whose warps have several tiles of rows, instead of
    // once for each block of a tile a warp. That saves loads, barriers and starts, but such blocks are few and long:
    // they must not leave multiprocessors idle. What is compared is how many tiles one warp has one after the other; a
    // head's rows are dealt out to as few blocks as that allows.
    void consider_resident(const AttentionProblem& p, const gpu::GpuLimits& gpu) {
        const int64_t slots = int64_t{kBlocksTogether} * gpu.multiprocessors, heads = p.batch * p.heads_k;
        const int64_t group = p.heads_q / p.heads_k, rows = group * p.seqlen_q;
        const int64_t tiles = ceil_divide(rows, tile.warp_rows());
        int64_t least = ceil_divide(blocks, slots) + 1;
        for (int64_t row_blocks = 1; row_blocks * heads < blocks; ++row_blocks) {
            const int64_t tiles_of_block = ceil_divide(tiles, row_blocks);
            const int64_t turns = ceil_divide(row_blocks * heads, slots) * ceil_divide(tiles_of_block, tile.warps);
            if (turns >= least) continue;
            least = turns;
            resident = true;
            launch.block_rows = static_cast<int>(tiles_of_block * tile.warp_rows());
            launch.row_blocks = static_cast<int>(ceil_divide(rows, launch.block_rows));
        }
        if (!resident) return;
        launch.heads_together = static_cast<int>(group);
        launch.value_distance = static_cast<int>(resident_keys(p) * tile.row_bytes());
        blocks = launch.row_blocks * heads;
        threads = tile.threads();
    }

    // Warps without rows help to load long keys; for short ones, more blocks that are smaller do more.
    void choose_threads(int64_t keys) {
        const int needed = launch.block_rows / tile.warp_rows() * 32, chunks = tile.head_dim * tile.element_bytes / 16;
        threads = keys <= kShortTiles * tile.keys && needed >= chunks ? needed : tile.threads();
    }
};

gpu::LaunchPlan plan_parts(const Cut& cut) {
    const DType dtype = cut.launch.problem.dtype;
    gpu::LaunchPlan plan;
    plan.image = std::string("attention/forward_") + name(dtype);
    plan.kernel = std::string("attention_forward_") + (cut.resident ? "resident_" : "") + name(dtype) + "_" +
                  std::to_string(cut.tile.head_dim) + (cut.tile.exact() ? "" : "_padded");
    plan.grid = gpu::linear_grid(cut.blocks);
    plan.block = {static_cast<uint32_t>(cut.threads), 1, 1};
    plan.shared_bytes =
        static_cast<uint32_t>(cut.resident ? resident_bytes(cut.launch.problem, cut.tile) : cut.tile.shared_bytes());
    plan.parameters = gpu::parameter_bytes(cut.launch);
    return plan;
}

gpu::LaunchPlan plan_combine(const Cut& cut) {
    const AttentionProblem& p = cut.launch.problem;
    gpu::LaunchPlan plan;
    plan.image = "attention/combine";
    plan.kernel = std::string("attention_combine_") + name(p.dtype);
    plan.grid = gpu::linear_grid(ceil_divide(partial_rows(p), kCombineThreads / 32));
    plan.block = {kCombineThreads, 1, 1};
    plan.parameters = gpu::parameter_bytes(cut.launch);
    return plan;
}

}  // namespace

int64_t attention_workspace(const AttentionProblem& p) {
    if (without_rows(p)) return 0;
    const int64_t splits = Cut(p).launch.splits;
    return splits == 1 ? 0 : splits * partial_rows(p) * (p.head_dim + 1);
}

std::vector<gpu::LaunchPlan> plan_attention_forward(const AttentionProblem& problem, const gpu::GpuLimits& gpu) {
    if (without_rows(problem)) return {};
    const AttentionProblem p = prepare_for_gpu(problem);
    Cut cut(p, gpu);
    cut.launch.problem = p;
    cut.launch.key_stride = static_cast<int>(p.key.row_stride * cut.tile.element_bytes);
    cut.launch.value_stride = static_cast<int>(p.value.row_stride * cut.tile.element_bytes);
    cut.launch.factor = p.scale * kLog2E;
    if (cut.launch.splits == 1) return {plan_parts(cut)};
    return {plan_parts(cut), plan_combine(cut)};
}

}  // namespace vlmk
