#include <cmath>

#include "attention/backward_launch.h"
#include "attention/backward_tiles.h"
#include "attention/plan.h"
#include "core/error.h"

namespace vlmk {
namespace {

int element_bytes(const AttentionProblem& p) { return p.dtype == DType::f32 ? 4 : 2; }

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of all heads, as lse has them.
int64_t query_rows(const AttentionProblem& p) {
    return (p.cu_seqlens_q == nullptr ? p.batch : 1) * p.heads_q * p.seqlen_q;
}

// Kernels without masks want a positive factor, too.
bool takes_plain_kernel(const AttentionProblem& p) { return is_plain(p) && p.scale > 0.0f && std::isfinite(p.scale); }

gpu::LaunchPlan launch(const BackwardLaunch& parameters, const std::string& what, const std::string& size,
                       int64_t blocks, int threads, int shared_bytes) {
    const char* dtype = name(parameters.problem.dtype);
    gpu::LaunchPlan plan;
    plan.image = std::string("attention/backward_") + dtype;
    plan.kernel = "attention_backward_" + what + "_" + dtype + size;
    plan.grid = gpu::linear_grid(blocks);
    plan.block = {static_cast<uint32_t>(threads), 1, 1};
    plan.shared_bytes = static_cast<uint32_t>(shared_bytes);
    plan.parameters = gpu::parameter_bytes(parameters);
    return plan;
}

RowStatistics* statistics_of(const AttentionProblem& p) { return reinterpret_cast<RowStatistics*>(p.workspace); }

gpu::LaunchPlan plan_statistics(const AttentionProblem& p) {
    const int64_t rows = query_rows(p);
    constexpr int64_t kRows = kStatisticsThreads / kStatisticsLanes;
    if (rows > INT32_MAX - kRows)
        throw NotImplemented("the backward of attention takes at most 2^31 query rows of all heads on a GPU, got " +
                             std::to_string(rows) + ": split the batch");
    return launch({p, statistics_of(p), 0, 0}, "statistics", "", ceil_divide(rows, kRows), kStatisticsThreads, 0);
}

// A kernel whose blocks hold rows of one side: both of its tensors, or only the first.
gpu::LaunchPlan plan_side(const AttentionProblem& p, Held held, const char* what, bool both_tensors) {
    const bool masked = p.head_dim > kPlainUpTo || p.dtype == DType::f32 || !takes_plain_kernel(p);
    const BackwardTile tile = backward_tile(held, element_bytes(p), static_cast<int>(p.head_dim), masked);
    const bool keys = held == Held::keys, packed = p.cu_seqlens_q != nullptr;
    const int64_t heads = keys ? p.heads_k : p.heads_q, rows = keys ? p.seqlen_k : p.seqlen_q;
    // As few blocks as a head needs, its rows dealt out evenly in whole warps. Packed sequences are as long as they are
    // on average, as far as is known here; what is behind the last one is one more.
    const int64_t sequences = p.batch + 1, warp_rows = 16 * tile.row_blocks;
    const int64_t warps = ceil_divide(packed ? ceil_divide(rows, sequences) : rows, warp_rows);
    BackwardLaunch parameters{p, statistics_of(p), 0, 0};
    parameters.block_rows = static_cast<int>(ceil_divide(warps, ceil_divide(warps, tile.warps)) * warp_rows);
    parameters.row_blocks =
        static_cast<int>(packed ? rows / parameters.block_rows + sequences : ceil_divide(rows, parameters.block_rows));
    return launch(parameters, std::string(masked ? "masked_" : "") + what, "_" + std::to_string(tile.head_dim),
                  parameters.row_blocks * heads * (packed ? 1 : p.batch),
                  backward_threads(held, element_bytes(p), tile.head_dim, masked),
                  backward_shared_bytes(tile, element_bytes(p), held, both_tensors));
}

// The keys of the kernel whose blocks own all keys of a head; 0 if none can. More than 256 cannot be: dK and dV of 512
// keys would be all registers of a multiprocessor. Several blocks a head would have to add up dQ, by atomics, whose
// order is nobody's, or from a copy in fp32 for each 256 keys. Such a copy is written and read once, 512 bytes a query
// with head_dim 64; scores and dP computed a second time instead are 66 kFLOP. On an A100 (312 TFLOP/s, 2 TB/s) that is
// 0.21 ns against 0.26, without memory that grows with the square of the length.
int resident_keys(const AttentionProblem& p, int shared_bytes) {
    if (p.dtype == DType::f32 || p.head_dim != kResidentHeadDim || p.cu_seqlens_q != nullptr || !takes_plain_kernel(p))
        return 0;
    for (const int keys : kResidentKeys)
        if (p.seqlen_k <= keys && resident_shared_bytes(kResidentHeadDim, keys) <= shared_bytes) return keys;
    return 0;
}

}  // namespace

int64_t attention_backward_workspace(const AttentionProblem& problem) {
    return query_rows(problem) * static_cast<int64_t>(sizeof(RowStatistics) / sizeof(float));
}

std::vector<gpu::LaunchPlan> plan_attention_backward(const AttentionProblem& problem, int shared_bytes) {
    const AttentionProblem p = prepare_for_gpu(problem);
    const bool packed = p.cu_seqlens_q != nullptr;
    const bool queries = p.heads_q * p.seqlen_q > 0 && (packed || p.batch > 0);
    const bool keys = p.heads_k * p.seqlen_k > 0 && (packed || p.batch > 0);
    std::vector<gpu::LaunchPlan> plans;
    if (queries) plans.push_back(plan_statistics(p));
    if (const int resident = queries && keys ? resident_keys(p, shared_bytes) : 0) {
        plans.push_back(launch({p, statistics_of(p), 0, 0}, "resident" + std::to_string(resident),
                               "_" + std::to_string(kResidentHeadDim), p.batch * p.heads_k, resident,
                               resident_shared_bytes(kResidentHeadDim, resident)));
        return plans;
    }
    if (keys && p.head_dim > both_gradients_up_to(element_bytes(p))) {
        plans.push_back(plan_side(p, Held::keys, "key", true));
        plans.push_back(plan_side(p, Held::keys, "value", false));
    } else if (keys) {
        plans.push_back(plan_side(p, Held::keys, "keys", true));
    }
    if (queries) plans.push_back(plan_side(p, Held::queries, "queries", true));
    return plans;
}

}  // namespace vlmk
