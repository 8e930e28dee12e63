// Few query rows and many keys, as in decoding: reading keys and values is the work. Lanes are elements of a row here,
//     S = Q K^T,  P = 2^(S - reference),  O = O * rescale + P V,
// so that keys and values are used as they lie in memory. The heads of a range go through the keys together, a stretch
// at a time: where they are neighbours in memory, it is read from end to end.
#pragma once
#include <type_traits>

#include "attention/blocks.h"
#include "attention/mask.h"
#include "attention/softmax.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

// Rows that share a key head, and rows of keys or vectors of values, that a register tile handles at once.
constexpr int kTileQueries = kLanes == 16 ? 4 : 2, kTileWidth = 4;

namespace detail {

// Lane by lane products of `kQueries` rows of queries with kTileWidth keys, still to be added up over the lanes: row r
// and key j at partial[r * kLanes + j].
template <int kQueries, class T>
VLMK_INLINE void multiply_keys(const float* queries, int64_t query_stride, const T* const (&keys)[kTileWidth],
                               int64_t head_dim, Vec* partial) {
    Vec sum[kQueries][kTileWidth] = {};
    for (int64_t c = 0; c < head_dim; c += kLanes) {
        Vec key[kTileWidth];
        VLMK_UNROLL for (int j = 0; j < kTileWidth; ++j) key[j] = load_partial(keys[j] + c, head_dim - c);
        VLMK_UNROLL for (int r = 0; r < kQueries; ++r) {
            const Vec query = load(queries + r * query_stride + c);
            VLMK_UNROLL for (int j = 0; j < kTileWidth; ++j) sum[r][j] = sum[r][j] + query * key[j];
        }
    }
    VLMK_UNROLL for (int r = 0; r < kQueries; ++r) VLMK_UNROLL for (int j = 0; j < kTileWidth; ++j)
        partial[r * kLanes + j] = sum[r][j];
}

// Scores of `kQueries` rows with `keys` keys, kLanes at most; the last one stands in for those that are missing.
template <int kQueries, class T>
VLMK_INLINE void score(const float* queries, int64_t query_stride, const T* key, int64_t key_stride, int64_t keys,
                       int64_t head_dim, float* scores) {
    Vec partial[kQueries * kLanes];
    for (int64_t j = 0; j < kLanes; j += kTileWidth) {
        const T* rows[kTileWidth];
        VLMK_UNROLL for (int i = 0; i < kTileWidth; ++i) {
            rows[i] = key;
            if (j + i + 1 < keys) key += key_stride;
        }
        multiply_keys<kQueries>(queries, query_stride, rows, head_dim, partial + j);
    }
    for (int r = 0; r < kQueries; ++r) store(scores + r * kStreamKeys, lane_sums(partial + r * kLanes));
}

// out += P V for `kQueries` rows and kVectors vectors of the values' elements, `left` of which there are.
template <int kQueries, int kVectors, class T>
VLMK_INLINE void add_values(const float* probabilities, int64_t probability_stride, const T* values,
                            int64_t value_stride, int64_t keys, int64_t left, float* out, int64_t out_stride) {
    Vec sum[kQueries][kVectors] = {};
    for (int64_t j = 0; j < keys; ++j, values += value_stride) {
        Vec value[kVectors];
        VLMK_UNROLL for (int v = 0; v < kVectors; ++v) value[v] = load_partial(values + v * kLanes, left - v * kLanes);
        VLMK_UNROLL for (int r = 0; r < kQueries; ++r) {
            const Vec probability = splat(probabilities[r * probability_stride + j]);
            VLMK_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = sum[r][v] + probability * value[v];
        }
    }
    VLMK_UNROLL for (int r = 0; r < kQueries; ++r) VLMK_UNROLL for (int v = 0; v < kVectors; ++v) {
        float* at = out + r * out_stride + v * kLanes;
        store(at, load(at) + sum[r][v]);
    }
}

// Calls use(constant, first row) for all rows, kTileQueries at a time, then one by one.
template <class Use>
VLMK_INLINE void for_query_tiles(int64_t rows, const Use& use) {
    int64_t r = 0;
    for (; r + kTileQueries <= rows; r += kTileQueries) use(std::integral_constant<int, kTileQueries>{}, r);
    for (; r < rows; ++r) use(std::integral_constant<int, 1>{}, r);
}

}  // namespace detail

template <class T>
class FewRows {
  public:
    const AttentionProblem& p;
    const Sequence& s;

    // All rows of key heads [first_head, first_head + heads).
    FewRows(const AttentionProblem& problem, const Sequence& sequence, int64_t first_head, int64_t heads)
        : p(problem),
          s(sequence),
          first_head_(first_head),
          heads_(heads),
          block_(problem, sequence, first_head, 0),
          dims_(whole_vectors(problem.head_dim)),
          queries_(heads * block_.count * dims_),
          out_(heads * block_.count * dims_),
          reference_(heads * block_.count),
          sum_(heads * block_.count) {
        fill_zero(queries_.get(), heads * block_.count * dims_);
        fill_zero(out_.get(), heads * block_.count * dims_);
        for (int64_t i = 0; i < heads * block_.count; ++i) {
            const Row row = this->row(i);
            convert_row(queries_.get() + i * dims_, row_pointer<const T>(p.query, s, s.first_q, row.head, row.position),
                        p.head_dim);
            reference_[i] = -kInfinity;
            sum_[i] = 0.0f;
        }
    }

    // Keys [first, last), kStreamKeys at a time.
    void add_keys(int64_t first, int64_t last) {
        for (int64_t begin = first; begin < last; begin += kStreamKeys) {
            const int64_t end = std::min(begin + kStreamKeys, last);
            if (invisible(p, s, block_, begin, end)) continue;
            for (int64_t head = 0; head < heads_; ++head) add_stretch(head, begin, end);
        }
    }

    // Row i, counted over the heads: itself, its sums of probabilities times values, and what they stand for.
    int64_t rows() const { return heads_ * block_.count; }
    Row row(int64_t i) const {
        Row row = block_.rows[i % block_.count];
        row.head += i / block_.count * (p.heads_q / p.heads_k);
        return row;
    }
    const float* out(int64_t i) const { return out_.get() + i * dims_; }
    float reference(int64_t i) const { return reference_[i]; }
    float sum(int64_t i) const { return sum_[i]; }

  private:
    void add_stretch(int64_t head, int64_t begin, int64_t end) {
        const int64_t first = head * block_.count, keys = end - begin;
        const T* key = row_pointer<const T>(p.key, s, s.first_k, first_head_ + head, begin);
        const T* value = row_pointer<const T>(p.value, s, s.first_k, first_head_ + head, begin);
        for (int64_t j = 0; j < keys; j += kLanes) {
            const int64_t count = std::min<int64_t>(keys - j, kLanes);
            ask_for_rows(key + kRowsAhead * p.key.row_stride, p.key.row_stride, j,
                         std::min(count, s.seqlen_k - begin - kRowsAhead - j));
            ask_for_rows(value, p.value.row_stride, j, count);
            score_keys(first, key + j * p.key.row_stride, count, scores_ + j);
        }
        for (int64_t r = 0; r < block_.count; ++r) softmax(first + r, begin, end, scores_ + r * kStreamKeys);
        int64_t c = 0;
        for (; c + kTileWidth * kLanes <= dims_; c += kTileWidth * kLanes)
            add_columns<kTileWidth>(first, value, keys, c);
        for (; c < dims_; c += kLanes) add_columns<1>(first, value, keys, c);
    }

    void ask_for_rows(const T* rows, int64_t stride, int64_t first, int64_t count) const {
        for (int64_t i = first; i < first + count; ++i) ask_for(rows + i * stride, p.head_dim);
    }

    void score_keys(int64_t first, const T* key, int64_t keys, float* scores) const {
        const float* queries = queries_.get() + first * dims_;
        detail::for_query_tiles(block_.count, [&](auto count, int64_t r) {
            detail::score<count>(queries + r * dims_, dims_, key, p.key.row_stride, keys, p.head_dim,
                                 scores + r * kStreamKeys);
        });
    }

    // out += P V for kVectors vectors of columns from column c on.
    template <int kVectors>
    void add_columns(int64_t first, const T* value, int64_t keys, int64_t c) const {
        float* out = out_.get() + first * dims_ + c;
        detail::for_query_tiles(block_.count, [&](auto count, int64_t r) {
            detail::add_values<count, kVectors>(scores_ + r * kStreamKeys, kStreamKeys, value + c, p.value.row_stride,
                                                keys, p.head_dim - c, out + r * dims_, dims_);
        });
    }

    // Scores of one row become probabilities.
    void softmax(int64_t i, int64_t begin, int64_t end, float* scores) {
        const int64_t padded = whole_vectors(end - begin);
        const float factor = finish_scores(p, s, row(i), begin, end, padded, scores, nullptr);
        Vec largest = load(scores);
        for (int64_t j = kLanes; j < padded; j += kLanes) largest = max(largest, load(scores + j));
        const float most = reduce_max(largest) * factor;
        if (most > reference_[i] + kSlack) {
            const float rescale = sum_[i] == 0.0f ? 0.0f : exp2(splat(reference_[i] - most))[0];
            reference_[i] = most;
            sum_[i] *= rescale;
            float* out = out_.get() + i * dims_;
            for (int64_t c = 0; c < dims_; c += kLanes) store(out + c, load(out + c) * splat(rescale));
        }
        // A row that has seen nothing keeps the reference -inf; subtracting 0 makes its probabilities 2^-inf = 0.
        const Vec reference = splat(reference_[i] == -kInfinity ? 0.0f : reference_[i]);
        Vec sum{};
        for (int64_t j = 0; j < padded; j += kLanes) {
            const Vec probability = exp2_nonpositive(load(scores + j) * splat(factor) - reference);
            store(scores + j, probability);
            sum += probability;
        }
        sum_[i] += reduce_add(sum);
    }

    const int64_t first_head_, heads_;
    RowBlock<kFewRows> block_;  // of the first head: the others' differ by the head alone
    const int64_t dims_;
    Buffer<float> queries_, out_, reference_, sum_;
    alignas(64) float scores_[kFewRows * kStreamKeys];
};

}  // namespace vlmk::VLMK_ISA
