// Flash attention backward on the CPU. For a block of query rows, which are columns here, over blocks of keys,
//     P^T = 2^(S^T - lse),  dP^T = V dO^T,  dS^T = scale * P^T * (dP^T - rowsum(dO * O) + dlse),
//     dV += P^T dO,  dK += dS^T Q,  dQ^T += K^T dS^T,
// so that no block of scores is turned around.
// A task owns a chunk of the keys of one key head and all query rows of its group, so that every sum has one owner and
// one order.
#include "attention/block_rows.h"
#include "attention/blocks.h"
#include "attention/column_mask.h"
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
    Panels columns;                                              // the rows
    Buffer<typename U::Unit> query_columns, grad_out_columns;    // right-hand sides of S^T and dP^T
    Buffer<typename U::Unit> query_rows, grad_out_rows;          // right-hand sides of dK and dV
    alignas(64) float lse[kBackwardRows], delta[kBackwardRows];  // lse in units of log 2, rowsum(dO * O) - dlse

    QueryBlock(const AttentionProblem& p, const Sequence& s, int64_t key_head, int64_t first_row)
        : block(p, s, key_head, first_row),
          columns(block.count),
          query_columns(packed_size<U>(p.head_dim, block.count)),
          grad_out_columns(packed_size<U>(p.head_dim, block.count)),
          query_rows(packed_size<U>(block.count, p.head_dim)),
          grad_out_rows(packed_size<U>(block.count, p.head_dim)) {
        const int64_t d = p.head_dim;
        for (int64_t r = 0; r < block.count; ++r) {
            const Row& row = block.rows[r];
            const T* g = row_pointer<const T>(p.grad_out, s, s.first_q, row.head, row.position);
            const T* o = row_pointer<const T>(p.out, s, s.first_q, row.head, row.position);
            const int64_t at = lse_index(p, s, row.head, row.position);
            // A row that saw nothing has lse -inf; +inf makes its probabilities 2^-inf = 0.
            lse[r] = p.lse[at] == -kInfinity ? kInfinity : p.lse[at] * kLog2E;
            delta[r] = dot(g, o, d) - (p.grad_lse != nullptr ? p.grad_lse[at] : 0.0f);
        }
        for (int64_t r = block.count; r < kBackwardRows; ++r) lse[r] = kInfinity, delta[r] = 0.0f;
        const BlockRows<T> queries(p.query, p, s, block), grads(p.grad_out, p, s, block);
        pack_transposed<U>(query_columns.get(), columns, queries.data, queries.stride, d);
        pack_transposed<U>(grad_out_columns.get(), columns, grads.data, grads.stride, d);
        pack<U>(query_rows.get(), Panels(d), queries.data, queries.stride, block.count);
        pack<U>(grad_out_rows.get(), Panels(d), grads.data, grads.stride, block.count);
    }
    PackedB<U> as_columns(const Buffer<typename U::Unit>& packed, int64_t d) const {
        return {columns, units<U>(d), packed.get()};
    }
    PackedB<U> as_rows(const Buffer<typename U::Unit>& packed, int64_t d) const {
        return {Panels(d), units<U>(block.count), packed.get()};
    }
};

// K and V of a chunk as rows, K^T as columns, block by block.
template <class T>
class ChunkKeys {
    using U = typename UnitOf<T>::type;
    using Unit = typename U::Unit;

  public:
    ChunkKeys(const AttentionProblem& p, const Sequence& s, int64_t head, const KeyBlocks& blocks, Chunk chunk)
        : rows_(p.head_dim),
          columns_(blocks.longest, p.head_dim),
          block_size_(blocks.longest * rows_.stride),
          keys_(chunk.blocks * block_size_),
          values_(chunk.blocks * block_size_),
          transposed_(chunk.blocks * columns_.size) {
        const int64_t d = p.head_dim;
        for (int64_t b = 0; b < chunk.blocks; ++b) {
            const int64_t begin = blocks.begin(chunk.first_block + b), length = blocks.length(chunk.first_block + b);
            const T* key = row_pointer<const T>(p.key, s, s.first_k, head, begin);
            const T* value = row_pointer<const T>(p.value, s, s.first_k, head, begin);
            for (int64_t j = 0; j < length; ++j) {
                if (j + kRowsAhead < length) {
                    ask_for(key + (j + kRowsAhead) * p.key.row_stride, d);
                    ask_for(value + (j + kRowsAhead) * p.value.row_stride, d);
                }
                rows_.write(keys_.get() + b * block_size_ + j * rows_.stride, key + j * p.key.row_stride, d);
                rows_.write(values_.get() + b * block_size_ + j * rows_.stride, value + j * p.value.row_stride, d);
            }
            // Tiles read rows behind the last, whose scores are not used.
            for (int64_t j = length; j < whole_vectors(length); ++j) {
                fill_zero(keys_.get() + b * block_size_ + j * rows_.stride, rows_.stride);
                fill_zero(values_.get() + b * block_size_ + j * rows_.stride, rows_.stride);
            }
            columns_.write(transposed_.get() + b * columns_.size, key, p.key.row_stride, length, d);
        }
    }
    LeftSide<U> keys(int64_t block) const { return {keys_.get() + block * block_size_, rows_.stride, 1}; }
    LeftSide<U> values(int64_t block) const { return {values_.get() + block * block_size_, rows_.stride, 1}; }
    LeftSide<U> keys_transposed(int64_t block) const {
        return columns_.left(transposed_.get() + block * columns_.size);
    }

  private:
    RowUnits<U> rows_;
    ColumnUnits<U> columns_;
    int64_t block_size_;
    Buffer<Unit> keys_, values_, transposed_;
};

// P^T and dS^T of a block of keys as the products take them.
template <class U>
class Slopes {
  public:
    explicit Slopes(int64_t max_keys)
        : probabilities_(max_keys, kBackwardRows),
          rows_(max_keys, kBackwardRows),
          columns_(packed_size<U>(max_keys, kBackwardRows)) {}

    // Out of the raw products S^T and dP^T, `keys` rows of q.columns, in place of which P^T and dS^T are left; both are
    // 0 where masked and in the padding.
    template <class Queries>
    void make(const AttentionProblem& p, const Queries& q, float factor, int64_t keys, float* scores, float* grads,
              const float* slopes) {
        constexpr int64_t kGroup = 2 * kLanes;  // keys that stay in the first cache until they are units
        const int64_t stride = q.columns.padded_columns(), unit_count = units<U>(keys) / U::kParts;
        for (int64_t group = 0; group < keys; group += kGroup) {
            const int64_t end = std::min(group + kGroup, keys);
            for (int64_t j = group; j < end; ++j) {
                float *score = scores + j * stride, *grad = grads + j * stride;
                for (int64_t r = 0; r < stride; r += kLanes) {
                    const Vec probability = exp2_nonpositive(load(score + r) * splat(factor) - load(q.lse + r));
                    Vec slope = probability * (load(grad + r) - load(q.delta + r)) * splat(p.scale);
                    if (slopes != nullptr) slope = slope * load(slopes + j * stride + r);
                    store(score + r, probability);
                    store(grad + r, slope);
                }
                probabilities_.set_floats(j, score, stride);
                rows_.set_floats(j, grad, stride);
            }
            const int64_t last = std::min((group + kGroup) / U::kDepth, unit_count);
            for (int64_t k = group / U::kDepth; k < last; ++k)
                pack_unit<U>(columns_.get(), q.columns, grads, stride, keys, k);
        }
    }
    LeftSide<U> probabilities(const float* scores, int64_t stride) const {
        return probabilities_.left_of(scores, stride);
    }
    LeftSide<U> rows(const float* grads, int64_t stride) const { return rows_.left_of(grads, stride); }
    const typename U::Unit* columns() const { return columns_.get(); }

  private:
    UnitRows<U> probabilities_, rows_;
    Buffer<typename U::Unit> columns_;
};

template <class T>
void backward_chunk(const AttentionProblem& p, const Sequence& s, int64_t head, const KeyBlocks& blocks, Chunk chunk,
                    float* partial_grad_query) {
    using U = typename UnitOf<T>::type;
    const int64_t d = p.head_dim, d_padded = Panels(d).padded_columns();
    const ChunkKeys<T> packed(p, s, head, blocks, chunk);
    const int64_t first_key = blocks.begin(chunk.first_block),
                  keys = blocks.end(chunk.first_block + chunk.blocks - 1) - first_key;
    Buffer<float> grad_key(keys * d_padded), grad_value(keys * d_padded);
    fill_zero(grad_key.get(), keys * d_padded);
    fill_zero(grad_value.get(), keys * d_padded);
    const int64_t block_floats = (blocks.longest + kLanes) * kBackwardRows;
    Buffer<float> scores(block_floats), grads(block_floats), softcap_slopes(p.softcap != 0.0f ? block_floats : 0);
    Buffer<float> grad_query(d_padded * kBackwardRows), grad_query_rows(d_padded * kBackwardRows);
    Slopes<U> slopes(blocks.longest);

    const ProductScope scope;
    for (int64_t rb = 0; rb < row_blocks<kBackwardRows>(p, s); ++rb) {
        const QueryBlock<T> q(p, s, head, rb * kBackwardRows);
        const int64_t stride = q.columns.padded_columns();
        fill_zero(grad_query.get(), d_padded * stride);
        for (int64_t b = 0; b < chunk.blocks; ++b) {
            const int64_t begin = blocks.begin(chunk.first_block + b), length = blocks.length(chunk.first_block + b);
            if (invisible(p, s, q.block, begin, begin + length)) continue;
            const int64_t rows = U::kTiles ? whole_vectors(length) : length;
            product<U>(false, rows, packed.keys(b), q.as_columns(q.query_columns, d), scores.get(), stride);
            product<U>(false, rows, packed.values(b), q.as_columns(q.grad_out_columns, d), grads.get(), stride);
            const float factor =
                finish_columns(p, s, q.block, begin, begin + length, scores.get(), stride, softcap_slopes.get());
            slopes.make(p, q, factor, length, scores.get(), grads.get(), softcap_slopes.get());

            const int64_t key_offset = (begin - first_key) * d_padded;
            product<U>(true, length, slopes.probabilities(scores.get(), stride), q.as_rows(q.grad_out_rows, d),
                       grad_value.get() + key_offset, d_padded);
            product<U>(true, length, slopes.rows(grads.get(), stride), q.as_rows(q.query_rows, d),
                       grad_key.get() + key_offset, d_padded);
            product<U>(true, d_padded, packed.keys_transposed(b), {q.columns, units<U>(length), slopes.columns()},
                       grad_query.get(), stride);
        }
        transpose_into(grad_query_rows.get(), d_padded, grad_query.get(), stride, d_padded, q.block.count);
        for (int64_t r = 0; r < q.block.count; ++r) {
            const Row& row = q.block.rows[r];
            const float* from = grad_query_rows.get() + r * d_padded;
            if (partial_grad_query == nullptr)
                convert_row(row_pointer<T>(p.grad_query, s, s.first_q, row.head, row.position), from, d);
            else
                convert_row(partial_grad_query + (rb * kBackwardRows + r) * d, from, d);
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
    const int64_t chunks = chunks_of(p, KeyBlocks(p.seqlen_k, kBackwardKeys));
    if (chunks == 1 || p.cu_seqlens_q != nullptr) {
        parallel_for(heads, p.threads, [&](int64_t task) {
            const Sequence s(p, task / p.heads_k);
            const KeyBlocks blocks(s.seqlen_k, kBackwardKeys);
            backward_chunk<T>(p, s, task % p.heads_k, blocks, {0, blocks.count}, nullptr);
        });
        return;
    }
    // Few heads: the chunks of a head run side by side, each with its own part of dQ.
    const KeyBlocks blocks(p.seqlen_k, kBackwardKeys);
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
