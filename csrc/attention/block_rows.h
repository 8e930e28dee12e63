// The rows of a block as a matrix: where they lie, or gathered where heads meet and rows have no common stride.
#pragma once
#include <cstring>

#include "attention/rows.h"
#include "core/buffer.h"

namespace vlmk::VLMK_ISA {

template <class T>
struct BlockRows {
    const T* data;
    int64_t stride;

    template <class Block>
    BlockRows(const HeadTensor& t, const AttentionProblem& p, const Sequence& s, const Block& block) {
        const Row &first = block.rows[0], &last = block.rows[block.count - 1];
        const auto pointer = [&](const Row& row) {
            return row_pointer<const T>(t, s, s.first_q, row.head, row.position);
        };
        if (first.head == last.head) {
            data = pointer(first);
            stride = t.row_stride;
            return;
        }
        stride = p.head_dim;
        gathered_ = Buffer<T>(block.count * stride);
        for (int64_t r = 0; r < block.count; ++r)
            std::memcpy(gathered_.get() + r * stride, pointer(block.rows[r]), static_cast<size_t>(stride) * sizeof(T));
        data = gathered_.get();
    }
    bool in_place() const { return !gathered_; }

  private:
    Buffer<T> gathered_;
};

}  // namespace vlmk::VLMK_ISA
