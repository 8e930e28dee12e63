// Flash attention forward on the CPU: for a block of query rows, over blocks of keys,
//     S = Q K^T,  P = 2^(S - max),  O = O * rescale + P V.
// Keys and values are packed once per key head; nothing of size Sq x Sk exists.
#include "attention/blocks.h"
#include "attention/mask.h"
#include "attention/softmax.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "simd/pack.h"
#include "simd/rows.h"

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
    const RowBlock<kForwardRows> block(p, s, key_head, first_row);
    const int64_t rows = block.count, d = p.head_dim, d_padded = Panels(d).padded_columns();
    const int64_t score_stride = spread_stride(packed.blocks.size);
    UnitRows<U> query(rows, d), probabilities(rows, score_stride);
    Buffer<float> scores(rows * score_stride), out(rows * d_padded), part(rows * d_padded);
    RowState state[kForwardRows];
    float rescale[kForwardRows];

    for (int64_t r = 0; r < rows; ++r)
        query.set(r, row_pointer<const T>(p.query, s, s.first_q, block.rows[r].head, block.rows[r].position), d);

    bool first = true;
    for (int64_t b = 0; b < packed.blocks.count; ++b) {
        const int64_t begin = packed.blocks.begin(b), end = begin + packed.blocks.length(b);
        if (invisible(p, s, block, begin, end)) continue;
        const PackedB<U> keys = packed.key_block(b), values = packed.value_block(b);

        product<U>(false, rows, query.left(), keys, scores.get(), score_stride);
        for (int64_t r = 0; r < rows; ++r) {
            float* row = scores.get() + r * score_stride;
            const int64_t padded = keys.panels.padded_columns();
            const float factor = finish_scores(p, s, block.rows[r], begin, end, padded, row, nullptr);
            rescale[r] = online_softmax<U>(row, padded, factor, state[r], probabilities.place_of(r, row));
        }
        const auto left = probabilities.placed(scores.get(), score_stride);

        // Each block starts from zero and is added to the rest: shorter sums, smaller rounding error.
        float* sum = first ? out.get() : part.get();
        product<U>(false, rows, left, values, sum, d_padded);
        if (!first)
            for (int64_t r = 0; r < rows; ++r)
                rescale_add(out.get() + r * d_padded, rescale[r], part.get() + r * d_padded, d_padded);
        first = false;
    }

    for (int64_t r = 0; r < rows; ++r) {
        const Row& row = block.rows[r];
        T* to = row_pointer<T>(p.out, s, s.first_q, row.head, row.position);
        // Rows that saw nothing give 0; NaN compares unequal to 0 and stays NaN.
        if (state[r].sum == 0.0f)
            fill_zero(to, d);
        else
            convert_row(to, out.get() + r * d_padded, d, 1.0f / state[r].sum);
        if (p.lse != nullptr) p.lse[lse_index(p, s, row.head, row.position)] = logsumexp(state[r]);
    }
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
    const KeyBlocks blocks(s.seqlen_k, p.head_dim);
    PackedKeys<T> packed(blocks, p.head_dim);
    for (int64_t b = 0; b < blocks.count; ++b) packed.pack_block(p, s, head, b);
    for (int64_t r = 0; r < blocks_of_rows; ++r) attend<T>(p, s, head, r * kForwardRows, packed);
}

template <class T>
void forward(const AttentionProblem& p) {
    clear_unused_rows<T>(p);
    const int64_t heads = p.batch * p.heads_k;
    if (heads == 0) return;
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
