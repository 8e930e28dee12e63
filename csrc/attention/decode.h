// Few query rows and many keys, as in decoding: whole heads, or parts of the keys side by side. Vectors (few_rows.h) or
// tiles (online_columns.h) go through the keys, whichever reads them faster.
#pragma once
#include "attention/few_rows.h"
#include "attention/online_columns.h"
#include "attention/packed_keys.h"
#include "attention/parts.h"
#include "core/parallel.h"

namespace vlmk::VLMK_ISA {

// So few rows, and so many keys, that reading them is the work.
inline bool has_few_rows(const AttentionProblem& p, const Sequence& s) {
    const int64_t rows = p.heads_q / p.heads_k * s.seqlen_q;
    return rows <= kFewRows && s.seqlen_k >= 2 * rows;
}
// Tiles multiply more than a few rows faster than vectors do, packing included, but for fp32.
template <class T>
bool tiles_pay(const AttentionProblem& p, const Sequence& s) {
    constexpr int64_t kRows = 8;
    using U = typename UnitOf<T>::type;
    return U::kTiles && U::kParts < 3 && p.heads_q / p.heads_k * s.seqlen_q > kRows;
}

// The panel's way through keys [first, last), which are packed for it alone.
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

// Output and logsumexp of one row; `sum` is that of its probabilities.
template <class T>
void write_row(const AttentionProblem& p, const Sequence& s, const Row& row, const float* out, float sum, float lse) {
    T* to = row_pointer<T>(p.out, s, s.first_q, row.head, row.position);
    // Rows that saw nothing give 0; NaN compares unequal to 0 and stays NaN.
    if (sum == 0.0f)
        fill_zero(to, p.head_dim);
    else
        convert_row(to, out, p.head_dim, 1.0f / sum);
    if (p.lse != nullptr) p.lse[lse_index(p, s, row.head, row.position)] = lse;
}

// Few rows of heads [first_head, last_head) and keys [first, last); use(i, row, out, reference, sum) receives the state
// of every row, counted over the heads, in the end.
template <class T, class Use>
void attend_few(const AttentionProblem& p, const Sequence& s, int64_t first_head, int64_t last_head, int64_t first,
                int64_t last, const Use& use) {
    if (!tiles_pay<T>(p, s)) {
        FewRows<T> few(p, s, first_head, last_head - first_head);
        few.add_keys(first, last);
        for (int64_t i = 0; i < few.rows(); ++i) use(i, few.row(i), few.out(i), few.reference(i), few.sum(i));
        return;
    }
    const ProductScope scope;
    OnlineColumns<T> panel(p, s, kStreamKeys);
    const int64_t stride = Panels(p.head_dim).padded_columns();
    Buffer<float> out(kPanelRows * stride);
    for (int64_t head = first_head, i = 0; head < last_head; ++head) {
        panel.start(RowBlock<kPanelRows>(p, s, head, 0));
        stream_keys(panel, head, first, last);
        panel.rows_of_sums(out.get(), stride);
        for (int64_t r = 0; r < panel.block.count; ++r, ++i)
            use(i, panel.block.rows[r], out.get() + r * stride, panel.reference(r), panel.sum(r));
    }
}

// Few rows, whose keys are cut into parts that run side by side, and heads into ranges if parts are too few for that.
template <class T>
void attend_few_in_parts(const AttentionProblem& p) {
    const int64_t parts = (p.seqlen_k + kPartKeys - 1) / kPartKeys, rows = p.heads_q / p.heads_k * p.seqlen_q,
                  stride = whole_vectors(p.head_dim);
    constexpr int64_t kTasksPerThread = 4;
    const int64_t ranges = std::clamp<int64_t>(kTasksPerThread * p.threads / (p.batch * parts), 1, p.heads_k);
    Parts kept(p.batch * p.heads_k * parts, rows, stride);
    parallel_for(p.batch * parts * ranges, p.threads, [&](int64_t task) {
        const int64_t range = task % ranges, part = task / ranges % parts, first = part * kPartKeys;
        const Sequence s(p, task / ranges / parts);
        const int64_t first_head = p.heads_k * range / ranges, last_head = p.heads_k * (range + 1) / ranges;
        attend_few<T>(p, s, first_head, last_head, first, std::min(first + kPartKeys, s.seqlen_k),
                      [&](int64_t i, const Row&, const float* out, float reference, float sum) {
                          const int64_t at = (s.index * p.heads_k + first_head + i / rows) * parts + part;
                          std::memcpy(kept.out(at) + i % rows * stride, out,
                                      static_cast<size_t>(stride) * sizeof(float));
                          kept.set_state(at, i % rows, reference, sum);
                      });
    });
    parallel_for(p.batch * p.heads_k, p.threads, [&](int64_t index) {
        const Sequence s(p, index / p.heads_k);
        const RowBlock<kFewRows> block(p, s, index % p.heads_k, 0);
        for (int64_t r = 0; r < block.count; ++r) {
            const Parts::Merged merged = kept.merge(index * parts, (index + 1) * parts, r);
            write_row<T>(p, s, block.rows[r], merged.out, merged.sum, merged.lse);
        }
    });
}

}  // namespace vlmk::VLMK_ISA
