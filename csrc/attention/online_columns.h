// A panel of query rows on its way through the keys. Rows of queries are columns here,
//     S^T = K Q^T,  P^T = 2^(S^T - reference),  O^T = O^T * rescale + V^T P^T,
// so that the softmax works on whole vectors of rows and P^T is a right-hand side as it is made.
#pragma once
#include "attention/block_rows.h"
#include "attention/blocks.h"
#include "attention/column_mask.h"
#include "attention/softmax.h"
#include "simd/pack.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

// Query rows of a panel.
constexpr int64_t kPanelRows = kPanelVectors * kLanes;

// Panels of one head that wait for more keys.
struct KeptPanels {
    int64_t out_size;
    Buffer<float> out;
    Buffer<SoftmaxState> states;
    Buffer<bool> empty;

    KeptPanels(int64_t panels, int64_t head_dim)
        : out_size(Panels(head_dim).padded_columns() * kPanelRows),
          out(panels * out_size),
          states(panels * kPanelVectors),
          empty(panels) {
        for (int64_t i = 0; i < panels; ++i) empty[i] = true;
    }
    float* out_of(int64_t panel) const { return out.get() + panel * out_size; }
    SoftmaxState* state_of(int64_t panel) const { return states.get() + panel * kPanelVectors; }
};

template <class T>
class OnlineColumns {
    using U = typename UnitOf<T>::type;
    using Unit = typename U::Unit;

  public:
    const AttentionProblem& p;
    const Sequence& s;
    RowBlock<kPanelRows> block;

    // `max_keys`: of one call of add_keys().
    OnlineColumns(const AttentionProblem& problem, const Sequence& sequence, int64_t max_keys)
        : p(problem),
          s(sequence),
          dim_rows_(Panels(problem.head_dim).padded_columns()),
          queries_(packed_size<U>(problem.head_dim, kPanelRows)),
          scores_((max_keys + kLanes) * kPanelRows),
          probabilities_(U::kDepth > 1 ? units<U>(max_keys) * kPanelRows : 0),
          out_(dim_rows_ * kPanelRows) {}

    // Goes on with these rows, which have seen nothing.
    void start(const RowBlock<kPanelRows>& rows) {
        block = rows;
        panel_ = Panels(block.count);
        stride_ = panel_.padded_columns();
        for (SoftmaxState& state : state_) state = {};
        empty_ = true;
        has_queries_ = false;
    }
    // After start(): goes on from what keep() left.
    void resume(const KeptPanels& kept, int64_t index) {
        empty_ = kept.empty[index];
        if (empty_) return;
        convert_row(out_.get(), kept.out_of(index), dim_rows_ * stride_);
        for (int64_t v = 0; v < panel_.vectors; ++v) state_[v] = kept.state_of(index)[v];
    }
    void keep(const KeptPanels& kept, int64_t index) const {
        kept.empty[index] = empty_;
        if (empty_) return;
        convert_row(kept.out_of(index), out_.get(), dim_rows_ * stride_);
        for (int64_t v = 0; v < panel_.vectors; ++v) kept.state_of(index)[v] = state_[v];
    }

    // Keys [begin, end): rows of K, for tiles whole vectors of them, and columns of V.
    void add_keys(int64_t begin, int64_t end, const LeftSide<U>& keys, const LeftSide<U>& values) {
        const int64_t count = end - begin;
        if (!has_queries_) pack_queries();
        product<U>(false, U::kTiles ? whole_vectors(count) : count, keys,
                   {panel_, units<U>(p.head_dim), queries_.get()}, scores_.get(), stride_);
        const float factor = finish_columns(p, s, block, begin, end, scores_.get(), stride_);
        for (int64_t v = 0; v < panel_.vectors; ++v)
            online_softmax<U>(scores_.get() + v * kLanes, stride_, count, factor, state_[v],
                              probabilities() + v * kLanes, [&](Vec rescale) { scale_out(v, rescale); });
        product<U>(!empty_, dim_rows_, values, {panel_, units<U>(count), probabilities()}, out_.get(), stride_);
        empty_ = false;
    }

    // Sums of probabilities times values as rows, `to_stride` apart, with room for whole vectors.
    void rows_of_sums(float* to, int64_t to_stride) const {
        if (empty_)
            for (int64_t r = 0; r < block.count; ++r) fill_zero(to + r * to_stride, dim_rows_);
        else
            transpose_into(to, to_stride, out_.get(), stride_, dim_rows_, block.count);
    }
    float reference(int64_t row) const { return state_[row / kLanes].reference[row % kLanes]; }
    float sum(int64_t row) const { return state_[row / kLanes].sum[row % kLanes]; }

    void write() const {
        for (int64_t v = 0; v < panel_.vectors; ++v) {
            const SoftmaxState& state = state_[v];
            const Vec factor = splat(1.0f) / state.sum, lse = p.lse != nullptr ? logsumexp(state) : Vec{};
            const IntVec saw_nothing = (IntVec)(state.sum == Vec{});
            const int64_t first = v * kLanes, count = std::min<int64_t>(block.count - first, kLanes);
            T* rows[kLanes];
            for (int64_t i = 0; i < count; ++i) {
                const Row& row = block.rows[first + i];
                rows[i] = row_pointer<T>(p.out, s, s.first_q, row.head, row.position);
                if (p.lse != nullptr) p.lse[lse_index(p, s, row.head, row.position)] = lse[i];
            }
            if (empty_) {
                for (int64_t i = 0; i < count; ++i) fill_zero(rows[i], p.head_dim);
                continue;
            }
            for (int64_t c = 0; c < p.head_dim; c += kLanes) {
                Vec columns[kLanes];
                // Rows that saw nothing give 0; NaN compares unequal to 0 and stays NaN.
                for (int i = 0; i < kLanes; ++i)
                    columns[i] = select(saw_nothing, Vec{}, load(out_.get() + (c + i) * stride_ + first) * factor);
                transpose(columns);
                for (int64_t i = 0; i < count; ++i) store_partial(rows[i] + c, columns[i], p.head_dim - c);
            }
        }
    }

  private:
    void scale_out(int64_t vector, Vec factor) {
        if (empty_) return;
        float* column = out_.get() + vector * kLanes;
        for (int64_t i = 0; i < dim_rows_; ++i, column += stride_) store(column, load(column) * factor);
    }

    // In place of the scores where units are floats.
    Unit* probabilities() const {
        if constexpr (U::kDepth == 1) return scores_.get();
        return probabilities_.get();
    }

    void pack_queries() {
        has_queries_ = true;
        const BlockRows<T> rows(p.query, p, s, block);
        pack_transposed<U>(queries_.get(), panel_, rows.data, rows.stride, p.head_dim);
        if (!rows.in_place()) return;
        const int64_t next = std::min(2 * block.count, s.seqlen_q - block.rows[0].position);
        for (int64_t r = block.count; r < next; ++r) ask_for(rows.data + r * rows.stride, p.head_dim);
    }

    const int64_t dim_rows_;
    Panels panel_{0};
    int64_t stride_ = 0;
    Buffer<Unit> queries_;
    Buffer<float> scores_;
    Buffer<Unit> probabilities_;
    Buffer<float> out_;
    SoftmaxState state_[kPanelVectors];
    bool empty_ = true, has_queries_ = false;
};

}  // namespace vlmk::VLMK_ISA
