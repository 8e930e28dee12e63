// Few query rows and many keys, as in decoding: keys and values are read once, so nothing of them is kept. Keys are the
// left-hand side of
//     S^T = K Q^T,
// because the left-hand side is used as it lies in memory, or converted row by row; values are packed block by block.
// Parts of the keys are tasks of their own, merged in the end.
#pragma once
#include "attention/online_rows.h"
#include "core/parallel.h"
#include "simd/pack.h"

namespace vlmk::VLMK_ISA {

// One block of rows, and so many keys that reading them is the work.
inline bool has_few_rows(const AttentionProblem& p, const Sequence& s) {
    const int64_t rows = p.heads_q / p.heads_k * s.seqlen_q;
    return rows <= kForwardRows && s.seqlen_k >= 2 * rows;
}

// Rows of a tensor as the left-hand side of a product.
template <class T>
class RowsInPlace {
    using U = typename UnitOf<T>::type;
    using Unit = typename U::Unit;

  public:
    RowsInPlace(int64_t rows, int64_t elements) : copies_(rows, elements), elements_(elements) {}

    LeftSide<U> left(const T* rows, int64_t row_stride, int64_t count) {
        if (usable(rows, row_stride)) return {reinterpret_cast<const Unit*>(rows), row_stride / U::kDepth, 1};
        for (int64_t r = 0; r < count; ++r) copies_.set(r, rows + r * row_stride, elements_);
        return copies_.left();
    }

  private:
    // If the elements are units, as many as the product reads.
    bool usable(const T* rows, int64_t row_stride) const {
        return sizeof(T) * U::kDepth == sizeof(Unit) && U::kParts == 1 &&
               units<U>(elements_) * U::kDepth == elements_ && row_stride % U::kDepth == 0 &&
               reinterpret_cast<uintptr_t>(rows) % sizeof(Unit) == 0;
    }

    UnitRows<U> copies_;
    int64_t elements_;
};

// rows x columns -> columns x rows, in blocks of kLanes; both have room for whole blocks.
inline void transpose_into(float* to, int64_t to_stride, const float* from, int64_t from_stride, int64_t rows,
                           int64_t columns) {
    for (int64_t i = 0; i < rows; i += kLanes)
        for (int64_t j = 0; j < columns; j += kLanes) {
            Vec block[kLanes];
            for (int l = 0; l < kLanes; ++l) block[l] = load(from + (i + l) * from_stride + j);
            transpose(block);
            for (int l = 0; l < kLanes && j + l < columns; ++l) store(to + (j + l) * to_stride + i, block[l]);
        }
}

// The rows' way through keys [first, last).
template <class T>
void stream_keys(OnlineRows<T>& rows, int64_t key_head, int64_t first, int64_t last) {
    using U = typename UnitOf<T>::type;
    const AttentionProblem& p = rows.p;
    const Sequence& s = rows.s;
    const int64_t d = p.head_dim;
    const Panels row_panels(rows.rows), dim_panels(d);
    Buffer<T> queries(rows.rows * d);
    for (int64_t r = 0; r < rows.rows; ++r) {
        const Row& row = rows.block.rows[r];
        std::memcpy(queries.get() + r * d, row_pointer<const T>(p.query, s, s.first_q, row.head, row.position),
                    static_cast<size_t>(d) * sizeof(T));
    }
    Buffer<typename U::Unit> packed_queries(packed_size<U>(d, rows.rows)),
        packed_values(packed_size<U>(kStreamKeys, d));
    pack_transposed<U>(packed_queries.get(), row_panels, queries.get(), d, d);
    RowsInPlace<T> keys(kStreamKeys, d);
    Buffer<float> scores(kStreamKeys * row_panels.padded_columns());

    for (int64_t begin = first; begin < last; begin += kStreamKeys) {
        const int64_t end = std::min(begin + kStreamKeys, last), count = end - begin;
        if (invisible(p, s, rows.block, begin, end)) continue;
        const auto left =
            keys.left(row_pointer<const T>(p.key, s, s.first_k, key_head, begin), p.key.row_stride, count);
        product<U>(false, count, left, {row_panels, units<U>(d), packed_queries.get()}, scores.get(),
                   row_panels.padded_columns());
        transpose_into(rows.scores(), rows.score_stride, scores.get(), row_panels.padded_columns(), count, rows.rows);
        pack<U>(packed_values.get(), dim_panels, row_pointer<const T>(p.value, s, s.first_k, key_head, begin),
                p.value.row_stride, count);
        rows.add_keys(begin, end, {dim_panels, units<U>(count), packed_values.get()});
    }
}

// What parts of the keys leave behind of one head's rows.
class Parts {
  public:
    Parts(int64_t count, int64_t rows, int64_t out_stride)
        : rows_(rows), stride_(out_stride), out_(count * rows * out_stride), state_(count * rows) {}

    template <class T>
    void keep(int64_t part, const OnlineRows<T>& rows) {
        std::memcpy(out_.get() + part * rows_ * stride_, rows.out(),
                    static_cast<size_t>(rows_ * stride_) * sizeof(float));
        for (int64_t r = 0; r < rows_; ++r) state_[part * rows_ + r] = rows.state(r);
    }

    // Parts [first, last) of a row as one, in their order: the sum is left in the first.
    struct Merged {
        const float* out;
        RowState state;
    };
    Merged merge(int64_t first, int64_t last, int64_t row) {
        RowState all;
        for (int64_t i = first; i < last; ++i) all.max = std::max(all.max, state_[i * rows_ + row].max);
        float* sum = out_.get() + (first * rows_ + row) * stride_;
        for (int64_t i = first; i < last; ++i) {
            const RowState& part = state_[i * rows_ + row];
            const float factor = part.sum == 0.0f ? 0.0f : exp2(splat(part.max - all.max))[0];
            all.sum += part.sum * factor;
            const float* out = out_.get() + (i * rows_ + row) * stride_;
            for (int64_t c = 0; c < stride_; c += kLanes) {
                const Vec before = i == first ? Vec{} : load(sum + c);
                // A part that saw nothing left nothing.
                store(sum + c, part.sum == 0.0f ? before : before + load(out + c) * splat(factor));
            }
        }
        return {sum, all};
    }

  private:
    int64_t rows_, stride_;
    Buffer<float> out_;
    Buffer<RowState> state_;
};

}  // namespace vlmk::VLMK_ISA
