// Few query rows and many keys, as in decoding: keys and values are read once, so nothing of them is kept. Keys are
// used as they lie in memory where that is possible; values are turned around block by block. Parts of the keys are
// tasks of their own, merged in the end.
#pragma once
#include "attention/online_columns.h"
#include "attention/packed_keys.h"
#include "core/parallel.h"

namespace vlmk::VLMK_ISA {

// One panel of rows, and so many keys that reading them is the work.
inline bool has_few_rows(const AttentionProblem& p, const Sequence& s) {
    const int64_t rows = p.heads_q / p.heads_k * s.seqlen_q;
    return rows <= kPanelRows && s.seqlen_k >= 2 * rows;
}

// The panel's way through keys [first, last).
template <class T>
void stream_keys(OnlineColumns<T>& panel, int64_t key_head, int64_t first, int64_t last) {
    PackedKeys<T> packed(1, kStreamKeys, panel.p.head_dim);
    for (int64_t begin = first; begin < last; begin += kStreamKeys) {
        const int64_t end = std::min(begin + kStreamKeys, last);
        if (invisible(panel.p, panel.s, panel.block, begin, end)) continue;
        packed.pack(panel.p, panel.s, key_head, begin, end - begin, 0);
        panel.add_keys(begin, end, packed.keys(0), packed.values(0));
    }
}

// What parts of the keys leave behind of one head's rows.
class Parts {
  public:
    Parts(int64_t count, int64_t rows, int64_t out_stride)
        : rows_(rows), stride_(out_stride), out_(count * rows * out_stride), reference_(count * rows), sum_(count * rows) {}

    template <class T>
    void keep(int64_t part, const OnlineColumns<T>& panel) {
        panel.rows_of_sums(out_.get() + part * rows_ * stride_, stride_);
        for (int64_t r = 0; r < rows_; ++r)
            reference_[part * rows_ + r] = panel.reference(r), sum_[part * rows_ + r] = panel.sum(r);
    }

    // Parts [first, last) of a row as one, in their order: the output is left in the first.
    struct Merged {
        const float* out;
        float sum, lse;
    };
    Merged merge(int64_t first, int64_t last, int64_t row) {
        SoftmaxState all;
        for (int64_t i = first; i < last; ++i) all.reference = max(splat(reference_[i * rows_ + row]), all.reference);
        float* out = out_.get() + (first * rows_ + row) * stride_;
        for (int64_t i = first; i < last; ++i) {
            const float sum = sum_[i * rows_ + row];
            const Vec factor = sum == 0.0f ? Vec{} : exp2(splat(reference_[i * rows_ + row]) - all.reference);
            all.sum += splat(sum) * factor;
            const float* part = out_.get() + (i * rows_ + row) * stride_;
            for (int64_t c = 0; c < stride_; c += kLanes) {
                const Vec before = i == first ? Vec{} : load(out + c);
                // A part that saw nothing left nothing.
                store(out + c, sum == 0.0f ? before : before + load(part + c) * factor);
            }
        }
        return {out, all.sum[0], logsumexp(all)[0]};
    }

  private:
    int64_t rows_, stride_;
    Buffer<float> out_, reference_, sum_;
};

}  // namespace vlmk::VLMK_ISA
