// Flash attention forward on the CPU: for a block of query rows, over blocks of keys, S = Q K^T and the online softmax.
// Keys and values are packed once per key head, or read once where rows are few; nothing of size Sq x Sk exists.
#include "attention/few_rows.h"
#include "core/dispatch.h"

namespace vlmk::VLMK_ISA {
namespace {

// K^T and V of one key head, packed block by block.
template <class T>
struct PackedKeys {
    using U = typename UnitOf<T>::type;
    const KeyBlocks& blocks;
    const int64_t head_dim, key_size, value_size;  // units of one block
    Buffer<typename U::Unit> keys, values;

    PackedKeys(const KeyBlocks& key_blocks, int64_t d)
        : blocks(key_blocks),
          head_dim(d),
          key_size(packed_size<U>(d, blocks.size)),
          value_size(packed_size<U>(blocks.size, d)),
          keys(key_size * blocks.count),
          values(value_size * blocks.count) {}

    void pack_block(const AttentionProblem& p, const Sequence& s, int64_t head, int64_t block) {
        const int64_t begin = blocks.begin(block), length = blocks.length(block);
        pack_transposed<U>(keys.get() + block * key_size, Panels(length),
                           row_pointer<const T>(p.key, s, s.first_k, head, begin), p.key.row_stride, head_dim);
        pack<U>(values.get() + block * value_size, Panels(head_dim),
                row_pointer<const T>(p.value, s, s.first_k, head, begin), p.value.row_stride, length);
    }
    PackedB<U> key_block(int64_t block) const {
        return {Panels(blocks.length(block)), units<U>(head_dim), keys.get() + block * key_size};
    }
    PackedB<U> value_block(int64_t block) const {
        return {Panels(head_dim), units<U>(blocks.length(block)), values.get() + block * value_size};
    }
};

template <class T>
void attend(const AttentionProblem& p, const Sequence& s, int64_t key_head, int64_t first_row,
            const PackedKeys<T>& packed) {
    using U = typename UnitOf<T>::type;
    OnlineRows<T> rows(p, s, key_head, first_row, packed.blocks.size);
    UnitRows<U> query(rows.rows, p.head_dim);
    for (int64_t r = 0; r < rows.rows; ++r) {
        const Row& row = rows.block.rows[r];
        query.set(r, row_pointer<const T>(p.query, s, s.first_q, row.head, row.position), p.head_dim);
    }
    for (int64_t b = 0; b < packed.blocks.count; ++b) {
        const int64_t begin = packed.blocks.begin(b), end = begin + packed.blocks.length(b);
        if (invisible(p, s, rows.block, begin, end)) continue;
        product<U>(false, rows.rows, query.left(), packed.key_block(b), rows.scores(), rows.score_stride);
        rows.add_keys(begin, end, packed.value_block(b));
    }
    rows.write();
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
    const int64_t head = index % p.heads_k, blocks_of_rows = row_blocks<kForwardRows>(p, s);
    if (blocks_of_rows == 0) return;
    const ProductScope scope;
    if (has_few_rows(p, s)) {
        OnlineRows<T> rows(p, s, head, 0, kStreamKeys);
        stream_keys(rows, head, 0, s.seqlen_k);
        return rows.write();
    }
    const KeyBlocks blocks(s.seqlen_k, p.head_dim);
    PackedKeys<T> packed(blocks, p.head_dim);
    for (int64_t b = 0; b < blocks.count; ++b) packed.pack_block(p, s, head, b);
    for (int64_t r = 0; r < blocks_of_rows; ++r) attend<T>(p, s, head, r * kForwardRows, packed);
}

// Few rows, whose keys are cut into parts that run side by side.
template <class T>
void attend_in_parts(const AttentionProblem& p, int64_t parts) {
    const int64_t heads = p.batch * p.heads_k, rows_of_head = p.heads_q / p.heads_k * p.seqlen_q;
    const int64_t length = ((p.seqlen_k + parts - 1) / parts + kStreamKeys - 1) / kStreamKeys * kStreamKeys;
    Parts kept(heads * parts, rows_of_head, Panels(p.head_dim).padded_columns());
    parallel_for(heads * parts, p.threads, [&](int64_t task) {
        const int64_t index = task / parts, head = index % p.heads_k, first = task % parts * length;
        const Sequence s(p, index / p.heads_k);
        const ProductScope scope;
        OnlineRows<T> rows(p, s, head, 0, kStreamKeys);
        stream_keys(rows, head, first, std::min(first + length, s.seqlen_k));
        kept.keep(task, rows);
    });
    parallel_for(heads, p.threads, [&](int64_t index) {
        const Sequence s(p, index / p.heads_k);
        const RowBlock<kForwardRows> block(p, s, index % p.heads_k, 0);
        for (int64_t r = 0; r < block.count; ++r) {
            const Parts::Merged merged = kept.merge(index * parts, (index + 1) * parts, r);
            write_row<T>(p, s, block.rows[r], merged.out, merged.state);
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
    if (heads >= 2 * p.threads || p.cu_seqlens_q != nullptr ||
        row_blocks<kForwardRows>(p, Sequence(p, 0)) < p.threads) {
        parallel_for(heads, p.threads, [&](int64_t index) { attend_head<T>(p, index); });
        return;
    }
    // Few heads: the threads share the packing and the rows of one head after the other.
    for (int64_t task = 0; task < heads; ++task) {
        const Sequence s(p, task / p.heads_k);
        const int64_t head = task % p.heads_k;
        const KeyBlocks blocks(s.seqlen_k, p.head_dim);
        PackedKeys<T> packed(blocks, p.head_dim);
        parallel_for(blocks.count, p.threads, [&](int64_t b) { packed.pack_block(p, s, head, b); });
        parallel_for(row_blocks<kForwardRows>(p, s), p.threads, [&](int64_t r) {
            const ProductScope scope;
            attend<T>(p, s, head, r * kForwardRows, packed);
        });
    }
}

}  // namespace

void attention_forward(const AttentionProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { forward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
