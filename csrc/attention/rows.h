// Which query rows a task handles and which keys each of them may see. Compiled per instruction set.
#pragma once
#include <algorithm>

#include "attention/problem.h"

namespace vlmk::VLMK_ISA {

// One sequence of the batch: where its rows start and how many there are.
struct Sequence {
    int64_t index, first_q, seqlen_q, first_k, seqlen_k;

    Sequence(const AttentionProblem& p, int64_t b)
        : index(b), first_q(0), seqlen_q(p.seqlen_q), first_k(0), seqlen_k(p.seqlen_k) {
        if (p.cu_seqlens_q == nullptr) return;
        first_q = p.cu_seqlens_q[b];
        seqlen_q = p.cu_seqlens_q[b + 1] - first_q;
        first_k = p.cu_seqlens_k[b];
        seqlen_k = p.cu_seqlens_k[b + 1] - first_k;
    }
};

template <class T>
inline T* row_pointer(const HeadTensor& t, const Sequence& s, int64_t first, int64_t head, int64_t row) {
    return static_cast<T*>(t.data) + s.index * t.batch_stride + head * t.head_stride + (first + row) * t.row_stride;
}

inline int64_t lse_index(const AttentionProblem& p, const Sequence& s, int64_t head, int64_t row) {
    const int64_t batch = p.cu_seqlens_q == nullptr ? s.index : 0;
    return (batch * p.heads_q + head) * p.seqlen_q + s.first_q + row;
}

// A query row: its head, its position in the sequence, and the keys [low, high) that causality and window leave it.
struct Row {
    int64_t head, position, low, high;

    bool sees_all(int64_t begin, int64_t end) const { return low <= begin && end <= high; }
};

inline Row make_row(const AttentionProblem& p, const Sequence& s, int64_t head, int64_t position) {
    const int64_t aligned = p.causal == Causal::top_left ? position : position + s.seqlen_k - s.seqlen_q;
    int64_t low = 0, high = s.seqlen_k;
    if (p.window_left >= 0) low = std::clamp<int64_t>(aligned - p.window_left, 0, s.seqlen_k);
    if (p.window_right >= 0) high = std::clamp<int64_t>(aligned + p.window_right + 1, 0, s.seqlen_k);
    if (p.causal != Causal::none) high = std::min(high, std::clamp<int64_t>(aligned + 1, 0, s.seqlen_k));
    return {head, position, low, high};
}

// Which of the first 64 tiles of keys rows see, a bit each.
struct SeenTiles {
    static constexpr int64_t kTiles = 64;
    uint64_t some = 0, all = ~uint64_t{0};  // rows

    void add(const AttentionProblem& p, const Sequence& s, const Row& row) {
        const FlagTensor& visible = p.visible;
        const bool* flags = visible.data + s.index * visible.batch_stride + row.position * visible.row_stride;
        const int64_t tiles = std::min((s.seqlen_k + p.tokens_per_tile - 1) / p.tokens_per_tile, kTiles);
        uint64_t seen = 0;
        for (int64_t t = 0; t < tiles; ++t) seen |= uint64_t{flags[t * visible.column_stride]} << t;
        some |= seen;
        all &= seen;
    }
    // The bits of tiles [first, last].
    static uint64_t bits(int64_t first, int64_t last) { return ~uint64_t{0} >> (63 - last) & ~uint64_t{0} << first; }
};

// Up to Capacity rows of the heads that share one key head, heads one after the other.
template <int64_t Capacity>
struct RowBlock {
    int64_t count = 0;
    int64_t low = 0, high = 0;                // union of the rows' key ranges
    int64_t common_low = 0, common_high = 0;  // what all rows see of causality and window
    SeenTiles tiles;
    Row rows[Capacity];

    RowBlock() {}
    RowBlock(const AttentionProblem& p, const Sequence& s, int64_t key_head, int64_t first_row) {
        const int64_t group = p.heads_q / p.heads_k, total = group * s.seqlen_q;
        count = std::min(Capacity, total - first_row);
        low = s.seqlen_k;
        common_high = s.seqlen_k;
        int64_t head = key_head * group + first_row / s.seqlen_q, position = first_row % s.seqlen_q;
        for (int64_t r = 0; r < count; ++r, ++position) {
            if (position == s.seqlen_q) ++head, position = 0;
            rows[r] = make_row(p, s, head, position);
            common_low = std::max(common_low, rows[r].low);
            common_high = std::min(common_high, rows[r].high);
            if (p.visible.data != nullptr) tiles.add(p, s, rows[r]);
            if (rows[r].low >= rows[r].high) continue;
            low = std::min(low, rows[r].low);
            high = std::max(high, rows[r].high);
        }
    }
    bool all_see(int64_t begin, int64_t end) const { return common_low <= begin && end <= common_high; }
};

template <int64_t Capacity>
int64_t row_blocks(const AttentionProblem& p, const Sequence& s) {
    return (p.heads_q / p.heads_k * s.seqlen_q + Capacity - 1) / Capacity;
}

}  // namespace vlmk::VLMK_ISA
