// Rows of the key head that comes next, asked for while the one before is computed: those of a head lie apart, each at
// the price of a memory access of its own, which short sequences would wait for.
#pragma once
#include "attention/rows.h"
#include "core/cache.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

template <class T>
class NextHead {
  public:
    // What follows key head `index`, counted over the batch; nothing where it would take more than its share of the
    // second cache, or where all heads together are near anyway and asking only gets in the way of the computation.
    NextHead(const AttentionProblem& p, int64_t index)
        : p_(p),
          exists_(index + 1 < p.batch * p.heads_k),
          s_(p, exists_ ? (index + 1) / p.heads_k : 0),
          head_((index + 1) % p.heads_k),
          group_(p.heads_q / p.heads_k) {
        constexpr int64_t kShare = 4, kNear = 12, kTensors = 2, kNumber = sizeof(T);
        const int64_t second = cache_sizes().second,
                      head = kTensors * (s_.seqlen_k + group_ * s_.seqlen_q) * p.head_dim * kNumber,
                      all = kTensors * p.head_dim * kNumber *
                            (p.heads_k * total_rows(p, p.seqlen_k) + p.heads_q * total_rows(p, p.seqlen_q));
        exists_ = exists_ && head <= second / kShare && all >= second * kNear;
    }

    void ask_for_part(int64_t part, int64_t parts) const {
        if (!exists_) return;
        ask<0>(p_.key, s_.first_k, head_, s_.seqlen_k, part, parts);
        ask<0>(p_.value, s_.first_k, head_, s_.seqlen_k, part, parts);
        for (int64_t h = head_ * group_; h < (head_ + 1) * group_; ++h) {
            ask<0>(p_.query, s_.first_q, h, s_.seqlen_q, part, parts);
            ask<1>(p_.out, s_.first_q, h, s_.seqlen_q, part, parts);
        }
    }

  private:
    // `seqlen` of a packed tensor counts all its rows.
    static int64_t total_rows(const AttentionProblem& p, int64_t seqlen) {
        return p.cu_seqlens_q != nullptr ? seqlen : p.batch * seqlen;
    }
    template <int kWrite>
    void ask(const HeadTensor& t, int64_t first, int64_t head, int64_t rows, int64_t part, int64_t parts) const {
        for (int64_t r = rows * part / parts; r < rows * (part + 1) / parts; ++r)
            ask_for<kWrite>(row_pointer<const T>(t, s_, first, head, r), p_.head_dim);
    }

    const AttentionProblem& p_;
    bool exists_;
    Sequence s_;
    int64_t head_, group_;
};

}  // namespace vlmk::VLMK_ISA
