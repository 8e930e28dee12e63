// Keys of one head as rows of units and values as columns of units, block by block: left-hand sides of
//     S^T = K Q^T,  O^T = V^T P^T.
#pragma once
#include "attention/blocks.h"
#include "attention/rows.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

template <class T>
class PackedKeys {
    using U = typename UnitOf<T>::type;
    using Unit = typename U::Unit;

  public:
    // Room for so many blocks of up to `max_keys`.
    PackedKeys(int64_t blocks, int64_t max_keys, int64_t head_dim)
        : head_dim_(head_dim),
          key_layout_(head_dim),
          value_layout_(max_keys, head_dim),
          key_size_(whole_vectors(max_keys) * key_layout_.stride),
          keys_(blocks * key_size_),
          values_(blocks * value_layout_.size) {}

    static int64_t block_bytes(int64_t max_keys, int64_t head_dim) {
        const int64_t keys = whole_vectors(max_keys) * RowUnits<U>(head_dim).stride,
                      values = ColumnUnits<U>(max_keys, head_dim).size;
        return (keys + values) * static_cast<int64_t>(sizeof(Unit));
    }
    // Keys [begin, begin + length) become block `block`.
    void pack(const AttentionProblem& p, const Sequence& s, int64_t head, int64_t begin, int64_t length,
              int64_t block) {
        const T* keys = row_pointer<const T>(p.key, s, s.first_k, head, begin);
        const T* values = row_pointer<const T>(p.value, s, s.first_k, head, begin);
        const int64_t readable = s.seqlen_k - begin;
        Unit* to = keys_.get() + block * key_size_;
        for (int64_t j = 0; j < length; ++j, to += key_layout_.stride) {
            if (j + kRowsAhead < readable) ask_for(keys + (j + kRowsAhead) * p.key.row_stride, head_dim_);
            key_layout_.write(to, keys + j * p.key.row_stride, head_dim_);
        }
        // Tiles read rows behind the last, whose scores are not used.
        fill_zero(to, (whole_vectors(length) - length) * key_layout_.stride);
        value_layout_.write(values_.get() + block * value_layout_.size, values, p.value.row_stride, length, head_dim_,
                            readable);
    }
    LeftSide<U> keys(int64_t block) const { return {keys_.get() + block * key_size_, key_layout_.stride, 1}; }
    LeftSide<U> values(int64_t block) const { return value_layout_.left(values_.get() + block * value_layout_.size); }

  private:
    int64_t head_dim_;
    RowUnits<U> key_layout_;
    ColumnUnits<U> value_layout_;
    int64_t key_size_;
    Buffer<Unit> keys_, values_;
};

}  // namespace vlmk::VLMK_ISA
