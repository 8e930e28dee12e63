// Flash attention forward on the CPU: for a panel of query rows, over blocks of keys, S^T = K Q^T and the online
// softmax. Keys and values are packed once per key head, or read once where rows are few; nothing of size Sq x Sk
// exists.
#include "attention/few_rows.h"
#include "attention/next_head.h"
#include "core/dispatch.h"

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

// All rows of a key head, counted over the batch: its packed keys stay in the core's own cache.
template <class T>
void attend_head(const AttentionProblem& p, int64_t index) {
    const Sequence s(p, index / p.heads_k);
    const int64_t head = index % p.heads_k, blocks_of_rows = row_blocks<kPanelRows>(p, s);
    if (blocks_of_rows == 0) return;
    const ProductScope scope;
    if (has_few_rows(p, s)) {
        OnlineColumns<T> panel(p, s, kStreamKeys);
        panel.start(head, 0);
        stream_keys(panel, head, 0, s.seqlen_k);
        return panel.write();
    }
    const KeyBlocks blocks(s.seqlen_k, kForwardKeys);
    PackedKeys<T> packed(blocks.count, blocks.longest, p.head_dim);
    for (int64_t b = 0; b < blocks.count; ++b) pack_block(p, s, head, blocks, b, packed);
    OnlineColumns<T> panel(p, s, blocks.longest);
    const NextHead<T> next(p, index);
    for (int64_t r = 0; r < blocks_of_rows; ++r) {
        attend(panel, head, r * kPanelRows, blocks, packed,
               [&](int64_t b) { next.ask_for_part(r * blocks.count + b, blocks_of_rows * blocks.count); });
    }
}

// Few rows, whose keys are cut into parts that run side by side. The heads of a part follow each other: where they are
// neighbours in memory, they share pages.
template <class T>
void attend_in_parts(const AttentionProblem& p, int64_t parts) {
    const int64_t heads = p.batch * p.heads_k, rows_of_head = p.heads_q / p.heads_k * p.seqlen_q;
    const int64_t length = ((p.seqlen_k + parts - 1) / parts + kStreamKeys - 1) / kStreamKeys * kStreamKeys;
    Parts kept(heads * parts, rows_of_head, Panels(p.head_dim).padded_columns());
    parallel_for(heads * parts, p.threads, [&](int64_t task) {
        const int64_t head = task % p.heads_k, part = task / p.heads_k % parts, first = part * length;
        const Sequence s(p, task / p.heads_k / parts);
        const ProductScope scope;
        OnlineColumns<T> panel(p, s, kStreamKeys);
        panel.start(head, 0);
        stream_keys(panel, head, first, std::min(first + length, s.seqlen_k));
        kept.keep((s.index * p.heads_k + head) * parts + part, panel);
    });
    parallel_for(heads, p.threads, [&](int64_t index) {
        const Sequence s(p, index / p.heads_k);
        const RowBlock<kPanelRows> block(p, s, index % p.heads_k, 0);
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
        return attend_in_parts<T>(p, (p.seqlen_k + kPartKeys - 1) / kPartKeys);
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
