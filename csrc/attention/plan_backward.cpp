#include "attention/backward_tiles.h"
#include "attention/plan.h"
#include "core/error.h"

namespace vlmk {
namespace {

gpu::LaunchPlan launch(const AttentionProblem& p, const char* what, const std::string& size, int64_t blocks,
                       int threads, int shared_bytes) {
    gpu::LaunchPlan plan;
    plan.image = std::string("attention/backward_") + name(p.dtype);
    plan.kernel = std::string("attention_backward_") + what + "_" + name(p.dtype) + size;
    plan.grid = gpu::linear_grid(blocks);
    plan.block = {static_cast<uint32_t>(threads), 1, 1};
    plan.shared_bytes = static_cast<uint32_t>(shared_bytes);
    plan.parameters = gpu::parameter_bytes(p);
    return plan;
}

gpu::LaunchPlan plan_statistics(const AttentionProblem& p) {
    const int64_t rows = (p.cu_seqlens_q == nullptr ? p.batch : 1) * p.heads_q * p.seqlen_q;
    constexpr int64_t kRows = kStatisticsThreads / kStatisticsLanes;
    if (rows > INT32_MAX - kRows)
        throw NotImplemented("the backward of attention takes at most 2^31 query rows of all heads on a GPU, got " +
                             std::to_string(rows) + ": split the batch");
    return launch(p, "statistics", "", (rows + kRows - 1) / kRows, kStatisticsThreads, 0);
}

// A kernel whose blocks hold rows of one side and compute the gradients of that side that `tensors` counts.
gpu::LaunchPlan plan_side(const AttentionProblem& p, Held held, const char* what, bool both_tensors) {
    const BackwardTile tile = backward_tile(held, static_cast<int>(p.head_dim));
    const bool keys = held == Held::keys;
    const int64_t heads = keys ? p.heads_k : p.heads_q, rows = keys ? p.seqlen_k : p.seqlen_q;
    const int64_t size = held_rows(tile);
    // Each packed sequence, and what is behind the last, starts a block of its own.
    const int64_t blocks = p.cu_seqlens_k == nullptr ? p.batch * ((rows + size - 1) / size) : rows / size + p.batch + 1;
    return launch(p, what, "_" + std::to_string(tile.head_dim), heads * blocks, tile.warps * 32,
                  backward_shared_bytes(tile, both_tensors));
}

}  // namespace

std::vector<gpu::LaunchPlan> plan_attention_backward(const AttentionProblem& problem) {
    const AttentionProblem p = prepare_for_gpu(problem);
    if (p.dtype != DType::bf16 && p.dtype != DType::f16)
        throw NotImplemented("the backward of attention takes bfloat16 and float16 on a GPU, got " +
                             std::string(name(p.dtype)));
    const bool packed = p.cu_seqlens_q != nullptr;
    const bool queries = p.heads_q * p.seqlen_q > 0 && (packed || p.batch > 0);
    const bool keys = p.heads_k * p.seqlen_k > 0 && (packed || p.batch > 0);
    std::vector<gpu::LaunchPlan> plans;
    if (queries) plans.push_back(plan_statistics(p));
    if (keys && p.head_dim > kBothGradientsUpTo) {
        plans.push_back(plan_side(p, Held::keys, "key", true));
        plans.push_back(plan_side(p, Held::keys, "value", false));
    } else if (keys) {
        plans.push_back(plan_side(p, Held::keys, "keys", true));
    }
    if (queries) plans.push_back(plan_side(p, Held::queries, "queries", true));
    return plans;
}

}  // namespace vlmk
