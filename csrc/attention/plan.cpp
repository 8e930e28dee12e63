#include "attention/plan.h"

#include <algorithm>

#include "core/error.h"

namespace vlmk {
namespace {

constexpr int64_t kMaxPosition = int64_t{1} << 29;  // sums of a few positions stay in 32 bits
constexpr int64_t kLoadBytes = 16;
constexpr int64_t kMaxRowBytes = (int64_t{1} << 31) - 1;  // from one row to the next

// Every row must start at a multiple of 16 bytes. Strides of dimensions with one element do not count.
void require_aligned(const AttentionProblem& p, const HeadTensor& t, bool query, const char* argument) {
    const int64_t element = p.dtype == DType::f32 ? 4 : 2;
    const int64_t heads = query ? p.heads_q : p.heads_k, rows = query ? p.seqlen_q : p.seqlen_k;
    const auto starts = [&](int64_t count, int64_t stride) { return count <= 1 || stride * element % kLoadBytes == 0; };
    require(reinterpret_cast<uintptr_t>(t.data) % kLoadBytes == 0 && starts(p.batch, t.batch_stride) &&
                starts(heads, t.head_stride) && starts(rows, t.row_stride),
            argument, " must have rows that start at multiples of 16 bytes: call .contiguous()");
    require(rows <= 1 || t.row_stride * element <= kMaxRowBytes, argument,
            " must have rows less than 2 GB apart: call .contiguous()");
}

}  // namespace

bool is_plain(const AttentionProblem& p) {
    return p.mask.data == nullptr && p.visible.data == nullptr && p.query_padding.data == nullptr &&
           p.causal == Causal::none && p.window_left < 0 && p.window_right < 0 && p.softcap == 0.0f;
}

AttentionProblem prepare_for_gpu(const AttentionProblem& problem) {
    AttentionProblem p = problem;
    const int64_t largest = std::max({p.batch, p.heads_q, p.seqlen_q, p.seqlen_k});
    if (largest > kMaxPosition || p.heads_q / p.heads_k * p.seqlen_q > kMaxPosition)
        throw NotImplemented("attention takes at most 2^29 sequences, heads and rows on a GPU, got " +
                             std::to_string(largest) + ": split the batch");
    // A longer window sees no more.
    p.window_left = std::min(p.window_left, kMaxPosition);
    p.window_right = std::min(p.window_right, kMaxPosition);
    p.tokens_per_tile = std::min(p.tokens_per_tile, kMaxPosition);
    require_aligned(p, p.query, true, "query");
    require_aligned(p, p.key, false, "key");
    require_aligned(p, p.value, false, "value");
    require_aligned(p, p.out, true, "out");
    if (p.grad_out.data != nullptr) {
        require_aligned(p, p.grad_out, true, "grad_out");
        require_aligned(p, p.grad_query, true, "grad_query");
        require_aligned(p, p.grad_key, false, "grad_key");
        require_aligned(p, p.grad_value, false, "grad_value");
    }
    return p;
}

}  // namespace vlmk
