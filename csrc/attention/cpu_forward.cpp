// Flash attention forward on the CPU: for a panel of query rows, over blocks of keys, S^T = K Q^T and the online
// softmax. Keys and values are packed once per key head, or read once where rows are few; nothing of size Sq x Sk
// exists.
#include "attention/few_rows.h"
#include "attention/next_head.h"
#include "attention/online_columns.h"
#include "attention/packed_keys.h"
#include "attention/parts.h"
#include "core/dispatch.h"
#include "core/parallel.h"

namespace vlmk::VLMK_ISA {
namespace {

// True if some row of the head sees one of the keys [begin, end): others need not be packed.
bool any_row_sees(const AttentionProblem& p, const Sequence& s, int64_t key_head, int64_t begin, int64_t end) {
    for (int64_t r = 0; r < row_blocks<kPanelRows>(p, s); ++r)
        if (!invisible(p, s, RowBlock<kPanelRows>(p, s, key_head, r * kPanelRows), begin, end)) return true;
    return false;
}

template <class T>
void pack_block(const AttentionProblem& p, const Sequence& s, int64_t head, const KeyBlocks& blocks, int64_t block,
                PackedKeys<T>& packed) {
    const int64_t begin = blocks.begin(block), length = blocks.length(block);
    if (any_row_sees(p, s, head, begin, begin + length)) packed.pack(p, s, head, begin, length, block);
}

// `before_block` is called in front of every block of keys.
template <class T, class Before>
void attend(OnlineColumns<T>& panel, int64_t key_head, int64_t first_row, const KeyBlocks& blocks,
            const PackedKeys<T>& packed, const Before& before_block) {
    panel.start(key_head, first_row);
    for (int64_t b = 0; b < blocks.count; ++b) {
        before_block(b);
        const int64_t begin = blocks.begin(b), end = begin + blocks.length(b);
        if (invisible(panel.p, panel.s, panel.block, begin, end)) continue;
        panel.add_keys(begin, end, packed.keys(b), packed.values(b));
    }
    panel.write();
}

// Rows of a packed tensor that belong to no sequence.
template <class T>
void clear_unused_rows(const AttentionProblem& p) {
    if (p.cu_seqlens_q == nullptr) return;
    for (int64_t head = 0; head < p.heads_q; ++head)
        for (int64_t row = p.cu_seqlens_q[p.batch]; row < p.seqlen_q; ++row) {
            fill_zero(static_cast<T*>(p.out.data) + head * p.out.head_stride + row * p.out.row_stride, p.head_dim);
            if (p.lse != nullptr) p.lse[head * p.seqlen_q + row] = -kInfinity;
        }
}

// So few rows, and so many keys, that reading them is the work.
bool has_few_rows(const AttentionProblem& p, const Sequence& s) {
    const int64_t rows = p.heads_q / p.heads_k * s.seqlen_q;
    return rows <= kFewRows && s.seqlen_k >= 2 * rows;
}
// Tiles of bf16 multiply more than a few rows faster than vectors do, packing included.
template <class T>
bool tiles_pay(const AttentionProblem& p, const Sequence& s) {
    constexpr int64_t kRows = 8;
    using U = typename UnitOf<T>::type;
    return U::kTiles && U::kParts == 1 && p.heads_q / p.heads_k * s.seqlen_q > kRows;
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
inline void write_row(const AttentionProblem& p, const Sequence& s, const Row& row, const float* out, float sum,
                      float lse) {
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
        panel.start(head, 0);
        stream_keys(panel, head, first, last);
        panel.rows_of_sums(out.get(), stride);
        for (int64_t r = 0; r < panel.block.count; ++r, ++i)
            use(i, panel.block.rows[r], out.get() + r * stride, panel.reference(r), panel.sum(r));
    }
}

// All rows of a key head, counted over the batch: its packed keys stay in the core's own cache.
template <class T>
void attend_head(const AttentionProblem& p, int64_t index) {
    const Sequence s(p, index / p.heads_k);
    const int64_t head = index % p.heads_k, blocks_of_rows = row_blocks<kPanelRows>(p, s);
    if (blocks_of_rows == 0) return;
    if (has_few_rows(p, s)) {
        attend_few<T>(p, s, head, head + 1, 0, s.seqlen_k,
                      [&](int64_t, const Row& row, const float* out, float reference, float sum) {
                          write_row<T>(p, s, row, out, sum, logsumexp({splat(reference), splat(sum)})[0]);
                      });
        return;
    }
    const ProductScope scope;
    const KeyBlocks blocks(s.seqlen_k, kForwardKeys);
    PackedKeys<T> packed(blocks.count, blocks.longest, p.head_dim);
    for (int64_t b = 0; b < blocks.count; ++b) pack_block(p, s, head, blocks, b, packed);
    OnlineColumns<T> panel(p, s, blocks.longest);
    const NextHead<T> next(p, index);
    for (int64_t r = 0; r < blocks_of_rows; ++r)
        attend(panel, head, r * kPanelRows, blocks, packed,
               [&](int64_t b) { next.ask_for_part(r * blocks.count + b, blocks_of_rows * blocks.count); });
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

template <class T>
void forward(const AttentionProblem& p) {
    clear_unused_rows<T>(p);
    const int64_t heads = p.batch * p.heads_k;
    if (heads == 0) return;
    if (p.cu_seqlens_q == nullptr && p.seqlen_q > 0 && has_few_rows(p, Sequence(p, 0)) && p.seqlen_k > kPartKeys)
        return attend_few_in_parts<T>(p);
    if (heads >= 2 * p.threads || p.cu_seqlens_q != nullptr || row_blocks<kPanelRows>(p, Sequence(p, 0)) < p.threads) {
        parallel_for(heads, p.threads, [&](int64_t index) { attend_head<T>(p, index); });
        return;
    }
    // Few heads: the threads share the packing and the rows of one head after the other.
    for (int64_t task = 0; task < heads; ++task) {
        const Sequence s(p, task / p.heads_k);
        const int64_t head = task % p.heads_k;
        const KeyBlocks blocks(s.seqlen_k, kForwardKeys);
        PackedKeys<T> packed(blocks.count, blocks.longest, p.head_dim);
        parallel_for(blocks.count, p.threads, [&](int64_t b) { pack_block(p, s, head, blocks, b, packed); });
        parallel_for(row_blocks<kPanelRows>(p, s), p.threads, [&](int64_t r) {
            const ProductScope scope;
            OnlineColumns<T> panel(p, s, blocks.longest);
            attend(panel, head, r * kPanelRows, blocks, packed, [](int64_t) {});
        });
    }
}

}  // namespace

void attention_forward(const AttentionProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { forward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
