// Flash attention backward on the CPU. For a block of query rows, over blocks of keys,
//     P = 2^(S - lse),  dP = dO V^T,  dS = scale * P * (dP - rowsum(dO * O) + dlse),
//     dV += P^T dO,  dK += dS^T Q,  dQ += dS K.
// A task owns a chunk of the keys of one key head and all query rows of its group, so that every sum has one owner and
// one order.
#include "attention/blocks.h"
#include "attention/mask.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "simd/pack.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {
namespace {

// The keys of one head that a task owns: consecutive key blocks.
struct Chunk {
    int64_t first_block, blocks;
};

// The chunks of all heads: ranges of key blocks, as many as make kBackwardTasks tasks.
int64_t chunks_of(const AttentionProblem& p, const KeyBlocks& blocks) {
    const int64_t heads = std::max<int64_t>(p.batch * p.heads_k, 1);
    return std::clamp<int64_t>(kBackwardTasks / heads, 1, std::max<int64_t>(blocks.count, 1));
}
Chunk chunk_at(const KeyBlocks& blocks, int64_t chunks, int64_t index) {
    const int64_t first = blocks.count * index / chunks;
    return {first, blocks.count * (index + 1) / chunks - first};
}

// Everything about a block of query rows that does not depend on the keys.
template <class T>
struct QueryBlock {
    using U = typename UnitOf<T>::type;
    RowBlock<kBackwardRows> block;
    UnitRows<U> query, grad_out;                             // left-hand sides of S and dP
    Buffer<typename U::Unit> query_packed, grad_out_packed;  // right-hand sides of dK and dV
    float lse[kBackwardRows], delta[kBackwardRows];          // lse in units of log 2, rowsum(dO * O) - dlse

    QueryBlock(const AttentionProblem& p, const Sequence& s, int64_t key_head, int64_t first_row)
        : block(p, s, key_head, first_row),
          query(block.count, p.head_dim),
          grad_out(block.count, p.head_dim),
          query_packed(packed_size<U>(block.count, p.head_dim)),
          grad_out_packed(packed_size<U>(block.count, p.head_dim)) {
        const int64_t d = p.head_dim;
        // Rows of several heads have no common stride: they are gathered first.
        Buffer<T> gathered_query(block.count * d), gathered_grad(block.count * d);
        for (int64_t r = 0; r < block.count; ++r) {
            const Row& row = block.rows[r];
            const T* q = row_pointer<const T>(p.query, s, s.first_q, row.head, row.position);
            const T* g = row_pointer<const T>(p.grad_out, s, s.first_q, row.head, row.position);
            const T* o = row_pointer<const T>(p.out, s, s.first_q, row.head, row.position);
            std::memcpy(gathered_query.get() + r * d, q, static_cast<size_t>(d) * sizeof(T));
            std::memcpy(gathered_grad.get() + r * d, g, static_cast<size_t>(d) * sizeof(T));
            query.set(r, q, d);
            grad_out.set(r, g, d);
            const int64_t at = lse_index(p, s, row.head, row.position);
            // A row that saw nothing has lse -inf; +inf makes its probabilities 2^-inf = 0.
            lse[r] = p.lse[at] == -kInfinity ? kInfinity : p.lse[at] * kLog2E;
            delta[r] = dot(g, o, d) - (p.grad_lse != nullptr ? p.grad_lse[at] : 0.0f);
        }
        pack<U>(query_packed.get(), Panels(d), gathered_query.get(), d, block.count);
        pack<U>(grad_out_packed.get(), Panels(d), gathered_grad.get(), d, block.count);
    }
    PackedB<U> query_right(int64_t d) const { return {Panels(d), units<U>(block.count), query_packed.get()}; }
    PackedB<U> grad_out_right(int64_t d) const { return {Panels(d), units<U>(block.count), grad_out_packed.get()}; }
};

// K^T, K and V^T of a chunk, packed block by block.
template <class T>
struct PackedChunk {
    using U = typename UnitOf<T>::type;
    int64_t transposed_size, plain_size;
    Buffer<typename U::Unit> keys_transposed, keys, values_transposed;

    PackedChunk(const AttentionProblem& p, const Sequence& s, int64_t head, const KeyBlocks& blocks, Chunk chunk)
        : transposed_size(packed_size<U>(p.head_dim, blocks.size)),
          plain_size(packed_size<U>(blocks.size, p.head_dim)),
          keys_transposed(transposed_size * chunk.blocks),
          keys(plain_size * chunk.blocks),
          values_transposed(transposed_size * chunk.blocks) {
        for (int64_t b = 0; b < chunk.blocks; ++b) {
            const int64_t begin = blocks.begin(chunk.first_block + b), length = blocks.length(chunk.first_block + b);
            const T* key = row_pointer<const T>(p.key, s, s.first_k, head, begin);
            const T* value = row_pointer<const T>(p.value, s, s.first_k, head, begin);
            pack_transposed<U>(keys_transposed.get() + b * transposed_size, Panels(length), key, p.key.row_stride,
                               p.head_dim);
            pack<U>(keys.get() + b * plain_size, Panels(p.head_dim), key, p.key.row_stride, length);
            pack_transposed<U>(values_transposed.get() + b * transposed_size, Panels(length), value, p.value.row_stride,
                               p.head_dim);
        }
    }
};

// P and dS of one row, in place of the raw products S and dP; both are 0 where masked and in the padding.
inline void probabilities_and_slopes(const AttentionProblem& p, float factor, float lse, float delta, int64_t padded,
                                     float* scores, float* grads, const float* slope) {
    for (int64_t j = 0; j < padded; j += kLanes) {
        const Vec probability = exp2_nonpositive(load(scores + j) * splat(factor) - splat(lse));
        Vec grad = probability * (load(grads + j) - splat(delta)) * splat(p.scale);
        if (slope != nullptr) grad = grad * load(slope + j);
        store(scores + j, probability);
        store(grads + j, grad);
    }
}

template <class T>
void backward_chunk(const AttentionProblem& p, const Sequence& s, int64_t head, const KeyBlocks& blocks, Chunk chunk,
                    float* partial_grad_query) {
    using U = typename UnitOf<T>::type;
    const int64_t d = p.head_dim, d_padded = Panels(d).padded_columns();
    const int64_t score_stride = spread_stride(blocks.size);
    const PackedChunk<T> packed(p, s, head, blocks, chunk);
    const int64_t first_key = blocks.begin(chunk.first_block),
                  keys = std::min(chunk.blocks * blocks.size, s.seqlen_k - first_key);
    Buffer<float> grad_key(keys * d_padded), grad_value(keys * d_padded);
    fill_zero(grad_key.get(), keys * d_padded);
    fill_zero(grad_value.get(), keys * d_padded);
    Buffer<float> scores(kBackwardRows * score_stride), grads(kBackwardRows * score_stride),
        grad_query(kBackwardRows * d_padded);
    Buffer<float> slopes(p.softcap != 0.0f ? score_stride : 0);
    UnitRows<U> grad_rows(kBackwardRows, score_stride);
    UnitColumns<U> probability_columns(kBackwardRows, score_stride), grad_columns(kBackwardRows, score_stride);

    const ProductScope scope;
    for (int64_t rb = 0; rb < row_blocks<kBackwardRows>(p, s); ++rb) {
        const QueryBlock<T> q(p, s, head, rb * kBackwardRows);
        const int64_t rows = q.block.count;
        fill_zero(grad_query.get(), rows * d_padded);
        for (int64_t b = 0; b < chunk.blocks; ++b) {
            const int64_t begin = blocks.begin(chunk.first_block + b), length = blocks.length(chunk.first_block + b),
                          end = begin + length;
            if (invisible(p, s, q.block, begin, end)) continue;
            const Panels panels(length);
            const int64_t padded = panels.padded_columns();
            const PackedB<U> keys_right{panels, units<U>(d), packed.keys_transposed.get() + b * packed.transposed_size};
            const PackedB<U> values_right{panels, units<U>(d),
                                          packed.values_transposed.get() + b * packed.transposed_size};
            const PackedB<U> keys_plain{Panels(d), units<U>(length), packed.keys.get() + b * packed.plain_size};

            product<U>(false, rows, q.query.left(), keys_right, scores.get(), score_stride);
            product<U>(false, rows, q.grad_out.left(), values_right, grads.get(), score_stride);
            for (int64_t r = 0; r < rows; ++r) {
                float* row = scores.get() + r * score_stride;
                const float factor = finish_scores(p, s, q.block.rows[r], begin, end, padded, row, slopes.get());
                probabilities_and_slopes(p, factor, q.lse[r], q.delta[r], padded, row, grads.get() + r * score_stride,
                                         slopes.get());
            }

            const int64_t key_offset = (begin - first_key) * d_padded;
            const auto pt = probability_columns.from_floats(scores.get(), score_stride, rows, padded);
            product<U>(true, length, pt, q.grad_out_right(d), grad_value.get() + key_offset, d_padded);
            const auto dst = grad_columns.from_floats(grads.get(), score_stride, rows, padded);
            product<U>(true, length, dst, q.query_right(d), grad_key.get() + key_offset, d_padded);
            const auto ds = grad_rows.from_floats(grads.get(), score_stride, padded);
            product<U>(true, rows, ds, keys_plain, grad_query.get(), d_padded);
        }
        for (int64_t r = 0; r < rows; ++r) {
            const Row& row = q.block.rows[r];
            if (partial_grad_query == nullptr)
                convert_row(row_pointer<T>(p.grad_query, s, s.first_q, row.head, row.position),
                            grad_query.get() + r * d_padded, d);
            else
                convert_row(partial_grad_query + (rb * kBackwardRows + r) * d, grad_query.get() + r * d_padded, d);
        }
    }
    for (int64_t j = 0; j < keys; ++j) {
        convert_row(row_pointer<T>(p.grad_key, s, s.first_k, head, first_key + j), grad_key.get() + j * d_padded, d);
        convert_row(row_pointer<T>(p.grad_value, s, s.first_k, head, first_key + j), grad_value.get() + j * d_padded,
                    d);
    }
}

// dQ of one head from the partial sums of its chunks, in the order of the chunks.
template <class T>
void sum_grad_query(const AttentionProblem& p, const Sequence& s, int64_t head, int64_t chunks, const float* partial,
                    int64_t chunk_stride) {
    const int64_t group = p.heads_q / p.heads_k, d = p.head_dim;
    Buffer<float> sum(d);
    for (int64_t row = 0; row < group * s.seqlen_q; ++row) {
        convert_row(sum.get(), partial + row * d, d);
        for (int64_t c = 1; c < chunks; ++c) {
            const float* addend = partial + c * chunk_stride + row * d;
            for (int64_t i = 0; i < d; ++i) sum[i] += addend[i];
        }
        convert_row(row_pointer<T>(p.grad_query, s, s.first_q, head * group + row / s.seqlen_q, row % s.seqlen_q),
                    sum.get(), d);
    }
}

template <class T>
void clear_rows(const HeadTensor& t, int64_t heads, int64_t begin, int64_t end, int64_t d) {
    for (int64_t head = 0; head < heads; ++head)
        for (int64_t row = begin; row < end; ++row)
            fill_zero(static_cast<T*>(t.data) + head * t.head_stride + row * t.row_stride, d);
}

template <class T>
void backward(const AttentionProblem& p) {
    if (p.cu_seqlens_q != nullptr) {
        clear_rows<T>(p.grad_query, p.heads_q, p.cu_seqlens_q[p.batch], p.seqlen_q, p.head_dim);
        clear_rows<T>(p.grad_key, p.heads_k, p.cu_seqlens_k[p.batch], p.seqlen_k, p.head_dim);
        clear_rows<T>(p.grad_value, p.heads_k, p.cu_seqlens_k[p.batch], p.seqlen_k, p.head_dim);
    }
    const int64_t heads = p.batch * p.heads_k;
    if (heads == 0) return;
    const int64_t chunks = chunks_of(p, KeyBlocks(p.seqlen_k, p.head_dim));
    if (chunks == 1 || p.cu_seqlens_q != nullptr) {
        parallel_for(heads, p.threads, [&](int64_t task) {
            const Sequence s(p, task / p.heads_k);
            const KeyBlocks blocks(s.seqlen_k, p.head_dim);
            backward_chunk<T>(p, s, task % p.heads_k, blocks, {0, blocks.count}, nullptr);
        });
        return;
    }
    // Few heads: the chunks of a head run side by side, each with its own part of dQ.
    const KeyBlocks blocks(p.seqlen_k, p.head_dim);
    const int64_t chunk_stride = p.heads_q / p.heads_k * p.seqlen_q * p.head_dim;
    Buffer<float> partial(heads * chunks * chunk_stride);
    parallel_for(heads * chunks, p.threads, [&](int64_t task) {
        const Sequence s(p, task / chunks / p.heads_k);
        backward_chunk<T>(p, s, task / chunks % p.heads_k, blocks, chunk_at(blocks, chunks, task % chunks),
                          partial.get() + task * chunk_stride);
    });
    parallel_for(heads, p.threads, [&](int64_t task) {
        sum_grad_query<T>(p, Sequence(p, task / p.heads_k), task % p.heads_k, chunks,
                          partial.get() + task * chunks * chunk_stride, chunk_stride);
    });
}

}  // namespace

void attention_backward(const AttentionProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { backward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
