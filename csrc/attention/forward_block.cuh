// The query rows of a block of threads: of which sequence and heads they are, and which keys they see.
#pragma once
#include "attention/forward_launch.h"
#include "attention/sight.cuh"

namespace vlmk::gpu {

// The keys that some row, and those that every row sees by causality and window.
struct Reach {
    Range some, every;
};

struct ForwardBlock {
    const ForwardLaunch& launch;
    const AttentionProblem& p;
    Sequence s;
    int head, key_head, split;
    int first_row, rows;  // the rows of heads_together heads are counted as one

    // Blocks of one head are neighbours: they share its keys in the cache.
    VLMK_DEVICE explicit ForwardBlock(const ForwardLaunch& l) : launch(l), p(l.problem) {
        const uint32_t row_blocks = static_cast<uint32_t>(launch.row_blocks);
        // Causal rows further down see more; they start first.
        const int counted = static_cast<int>(blockIdx.x % row_blocks);
        int number = p.causal == Causal::none ? counted : launch.row_blocks - 1 - counted;
        int others = static_cast<int>(blockIdx.x / row_blocks);
        split = others % launch.splits;
        others /= launch.splits;
        const int head_blocks = static_cast<int>(p.heads_q) / launch.heads_together;
        head = others % head_blocks * launch.heads_together;
        key_head = head / static_cast<int>(p.heads_q / p.heads_k);
        int sequence = others / head_blocks;
        if (p.cu_seqlens_q != nullptr) {
            const PackedBlock packed =
                find_packed_block(p.cu_seqlens_q, p.batch, p.seqlen_q, launch.block_rows, number);
            sequence = packed.sequence, number = packed.block;
        }
        s = find_sequence(p, sequence);
        first_row = number * launch.block_rows;
        rows = min(launch.block_rows, launch.heads_together * s.seqlen_q - first_row);
    }

    // Head and position of a row of the block; rows past the last are like it.
    VLMK_DEVICE Place place(int row) const {
        row = first_row + min(row, rows - 1);
        if (launch.heads_together == 1) return {head, row};
        return {head + row / s.seqlen_q, row % s.seqlen_q};
    }

    // A row's place in the logsumexps and in the workspace.
    VLMK_DEVICE int64_t number(int row) const {
        const Place at = place(row);
        return lse_index(p, s, at.head, at.position);
    }

    // Of rows [begin, end).
    VLMK_DEVICE Reach reach(int begin, int end) const {
        const Place first = place(begin), last = place(end - 1);
        const bool one_head = first.head == last.head;
        const Range low = key_range(p, s, one_head ? first.position : 0);
        const Range high = key_range(p, s, one_head ? last.position : s.seqlen_q - 1);
        return {{low.low, high.high}, {high.low, low.high}};
    }

    template <class T>
    VLMK_DEVICE const T* query(int row) const {
        const Place at = place(row);
        return row_pointer<const T>(p.query, s, s.first_q, at.head, at.position);
    }
    template <class T>
    VLMK_DEVICE T* out(int row) const {
        const Place at = place(row);
        return row_pointer<T>(p.out, s, s.first_q, at.head, at.position);
    }
    template <class T>
    VLMK_DEVICE const T* key_row(const HeadTensor& keys_or_values, int key) const {
        return row_pointer<const T>(keys_or_values, s, s.first_k, key_head, key);
    }
};

// The place of a warp among those of its block that deal rows out. The last ones often have no rows, or fewer: they
// take turns, or one of the four parts of a multiprocessor, which have the warps modulo four, would always wait for the
// others. Blocks that share a multiprocessor are as many apart as there are multiprocessors, 108 to 170.
VLMK_DEVICE int warp_place(int warps) {
    constexpr unsigned kTurn = 64;
    return static_cast<int>((threadIdx.x / kWarpLanes + blockIdx.x / kTurn) % static_cast<unsigned>(warps));
}

}  // namespace vlmk::gpu
