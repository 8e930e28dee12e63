// Which query rows a block handles and which keys each of them may see: the meanings of rows.h on the GPU. Positions
// are 32-bit; plan.cpp refuses longer sequences.
#pragma once
#include "attention/problem.h"
#include "gpu/device.cuh"

namespace vlmk::gpu {

// One sequence of the batch: where its rows start and how many there are.
struct Sequence {
    int index, first_q, seqlen_q, first_k, seqlen_k;
};

// The host has not read the boundaries of packed sequences. Whatever they are, no row is outside the tensors.
VLMK_DEVICE int boundary(const int32_t* cu_seqlens, int64_t n, int64_t rows) {
    return max(0, min(cu_seqlens[n], static_cast<int>(rows)));
}

// Sequence p.batch is what packed tensors hold behind the last boundary: rows that see no key.
VLMK_DEVICE Sequence find_sequence(const AttentionProblem& p, int index) {
    if (p.cu_seqlens_q == nullptr) return {index, 0, static_cast<int>(p.seqlen_q), 0, static_cast<int>(p.seqlen_k)};
    const int first_q = boundary(p.cu_seqlens_q, index, p.seqlen_q);
    const int first_k = boundary(p.cu_seqlens_k, index, p.seqlen_k);
    if (index == static_cast<int>(p.batch)) return {index, first_q, static_cast<int>(p.seqlen_q) - first_q, first_k, 0};
    return {index, first_q, max(0, boundary(p.cu_seqlens_q, index + 1, p.seqlen_q) - first_q), first_k,
            max(0, boundary(p.cu_seqlens_k, index + 1, p.seqlen_k) - first_k)};
}

// Packed sequences in blocks of `size` rows, each sequence starting a block of its own. Nobody knows how many blocks
// that makes, but sequence n needs no more than start(n + 1) - start(n), with start(n) = cu_seqlens[n] / size + n.
struct PackedBlock {
    int sequence, block;
};
VLMK_DEVICE PackedBlock find_packed_block(const int32_t* cu_seqlens, int64_t sequences, int64_t rows, int size,
                                          int number) {
    int low = 0, high = static_cast<int>(sequences);  // the last one that starts at or before `number`
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (boundary(cu_seqlens, middle, rows) / size + middle <= number)
            low = middle;
        else
            high = middle - 1;
    }
    return {low, number - boundary(cu_seqlens, low, rows) / size - low};
}

template <class T>
VLMK_DEVICE T* row_pointer(const HeadTensor& t, const Sequence& s, int first, int head, int row) {
    return static_cast<T*>(t.data) + s.index * t.batch_stride + head * t.head_stride +
           int64_t{first + row} * t.row_stride;
}

VLMK_DEVICE int64_t lse_index(const AttentionProblem& p, const Sequence& s, int head, int row) {
    const int64_t batch = p.cu_seqlens_q == nullptr ? s.index : 0;
    return (batch * p.heads_q + head) * p.seqlen_q + s.first_q + row;
}

// Rows or keys [low, high).
struct Range {
    int low, high;

    VLMK_DEVICE bool empty() const { return low >= high; }
    VLMK_DEVICE bool holds(int i) const { return low <= i && i < high; }
};

// Row i is beside key i + shift.
VLMK_DEVICE int diagonal_shift(const AttentionProblem& p, const Sequence& s) {
    return p.causal == Causal::top_left ? 0 : s.seqlen_k - s.seqlen_q;
}
// How far right of the diagonal a row sees; -1: unlimited. Causality is a window that ends on the diagonal.
VLMK_DEVICE int right_limit(const AttentionProblem& p) {
    return p.causal != Causal::none ? 0 : static_cast<int>(p.window_right);
}

// The keys that causality and window leave to a row. Both ends grow with the position.
VLMK_DEVICE Range key_range(const AttentionProblem& p, const Sequence& s, int position) {
    const int aligned = position + diagonal_shift(p, s), left = static_cast<int>(p.window_left), right = right_limit(p);
    Range keys{0, s.seqlen_k};
    if (left >= 0) keys.low = max(0, min(aligned - left, s.seqlen_k));
    if (right >= 0) keys.high = max(0, min(aligned + right + 1, s.seqlen_k));
    return keys;
}

// The rows that causality and window leave to a key.
VLMK_DEVICE Range row_range(const AttentionProblem& p, const Sequence& s, int key) {
    const int aligned = key - diagonal_shift(p, s), left = static_cast<int>(p.window_left), right = right_limit(p);
    Range rows{0, s.seqlen_q};
    if (right >= 0) rows.low = max(0, min(aligned - right, s.seqlen_q));
    if (left >= 0) rows.high = max(0, min(aligned + left + 1, s.seqlen_q));
    return rows;
}

}  // namespace vlmk::gpu
