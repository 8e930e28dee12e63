// A block of query rows on its way through the keys: out, largest score and sum of probabilities so far,
//     P = 2^(S - max),  O = O * rescale + P V.
#pragma once
#include "attention/blocks.h"
#include "attention/mask.h"
#include "attention/softmax.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

// Output and logsumexp of one row.
template <class T>
inline void write_row(const AttentionProblem& p, const Sequence& s, const Row& row, const float* out,
                      const RowState& state) {
    T* to = row_pointer<T>(p.out, s, s.first_q, row.head, row.position);
    // Rows that saw nothing give 0; NaN compares unequal to 0 and stays NaN.
    if (state.sum == 0.0f)
        fill_zero(to, p.head_dim);
    else
        convert_row(to, out, p.head_dim, 1.0f / state.sum);
    if (p.lse != nullptr) p.lse[lse_index(p, s, row.head, row.position)] = logsumexp(state);
}

template <class T>
class OnlineRows {
    using U = typename UnitOf<T>::type;

  public:
    const AttentionProblem& p;
    const Sequence& s;
    const RowBlock<kForwardRows> block;
    const int64_t rows, score_stride, out_stride;

    OnlineRows(const AttentionProblem& problem, const Sequence& sequence, int64_t key_head, int64_t first_row,
               int64_t max_keys)
        : p(problem),
          s(sequence),
          block(problem, sequence, key_head, first_row),
          rows(block.count),
          score_stride(spread_stride(max_keys)),
          out_stride(Panels(problem.head_dim).padded_columns()),
          probabilities_(rows, score_stride),
          scores_(rows * score_stride),
          out_(rows * out_stride),
          part_(rows * out_stride) {}

    // Room for <q, k> of the rows and the keys that come next, which add_keys() then goes on from.
    float* scores() const { return scores_.get(); }
    float* out() const { return out_.get(); }
    const RowState& state(int64_t row) const { return state_[row]; }

    void add_keys(int64_t begin, int64_t end, const PackedB<U>& values) {
        const int64_t padded = Panels(end - begin).padded_columns();
        float rescale[kForwardRows];
        for (int64_t r = 0; r < rows; ++r) {
            float* row = scores() + r * score_stride;
            const float factor = finish_scores(p, s, block.rows[r], begin, end, padded, row, nullptr);
            rescale[r] = online_softmax<U>(row, padded, factor, state_[r], probabilities_.place_of(r, row));
        }
        // Each block starts from zero and is added to the rest: shorter sums, smaller rounding error.
        float* sum = empty_ ? out_.get() : part_.get();
        product<U>(false, rows, probabilities_.placed(scores(), score_stride), values, sum, out_stride);
        if (!empty_)
            for (int64_t r = 0; r < rows; ++r)
                rescale_add(out_.get() + r * out_stride, rescale[r], part_.get() + r * out_stride, out_stride);
        empty_ = false;
    }

    void write() const {
        for (int64_t r = 0; r < rows; ++r) write_row<T>(p, s, block.rows[r], out() + r * out_stride, state(r));
    }

  private:
    UnitRows<U> probabilities_;
    Buffer<float> scores_, out_, part_;
    RowState state_[kForwardRows];
    bool empty_ = true;
};

}  // namespace vlmk::VLMK_ISA
