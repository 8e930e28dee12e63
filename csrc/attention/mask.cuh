// What a score becomes before the softmax: the meanings of mask.h on the GPU, a pair at a time. Scores are in units of
// log 2. Everything that is asked of the problem is the same for all threads.
#pragma once
#include "attention/rows.cuh"
#include "gpu/convert.cuh"
#include "gpu/exp2.cuh"

namespace vlmk::gpu {

// <q, k> -> score without masks. `slope`, if not null, receives d score / d (scale * <q, k>) without the log2 e.
VLMK_DEVICE float scaled_score(const AttentionProblem& p, float product, float* slope = nullptr) {
    if (p.softcap == 0.0f) return product * (p.scale * kLog2E);
    const float t = tanhf(product * (p.scale / p.softcap));
    if (slope != nullptr) *slope = 1.0f - t * t;
    return t * (p.softcap * kLog2E);
}

// True if something other than causality, window and the ends of the sequence hides pairs or changes scores.
VLMK_DEVICE bool masks_pairs(const AttentionProblem& p) {
    return p.mask.data != nullptr || p.visible.data != nullptr || p.query_padding.data != nullptr;
}

// The mask tensors as one query row sees them.
class RowMask {
  public:
    VLMK_DEVICE RowMask(const AttentionProblem& p, const Sequence& s, int head, int position) : p_(p) {
        if (p.mask.data != nullptr)
            mask_ = s.index * p.mask.batch_stride + head * p.mask.head_stride + position * p.mask.row_stride;
        if (p.visible.data != nullptr)
            visible_ = p.visible.data + s.index * p.visible.batch_stride + position * p.visible.row_stride;
        if (p.query_padding.data != nullptr &&
            p.query_padding.data[s.index * p.query_padding.batch_stride + position * p.query_padding.row_stride])
            key_padding_ = p.key_padding.data + s.index * p.key_padding.batch_stride;
    }

    // A score with the mask applied.
    VLMK_DEVICE float apply(int key, float score) const {
        if (p_.mask.data != nullptr) score = add_mask(mask_ + key * p_.mask.column_stride, score);
        if (p_.visible.data != nullptr &&
            !visible_[key / static_cast<int>(p_.tokens_per_tile) * p_.visible.column_stride])
            score = -infinity();
        if (key_padding_ != nullptr && key_padding_[key * p_.key_padding.row_stride]) score = -infinity();
        return score;
    }

  private:
    VLMK_DEVICE float add_mask(int64_t at, float score) const {
        switch (p_.mask.dtype) {
            case DType::boolean:
                return static_cast<const bool*>(p_.mask.data)[at] ? score : -infinity();
            case DType::bf16:
                return score + to_float(static_cast<const bf16*>(p_.mask.data)[at]) * kLog2E;
            case DType::f16:
                return score + to_float(static_cast<const f16*>(p_.mask.data)[at]) * kLog2E;
            default:
                return score + static_cast<const float*>(p_.mask.data)[at] * kLog2E;
        }
    }

    const AttentionProblem& p_;
    int64_t mask_ = 0;
    const bool* visible_ = nullptr;
    const bool* key_padding_ = nullptr;  // null for rows that are no padding
};

}  // namespace vlmk::gpu
