// The parameter of the backward kernels: the problem, and how it is cut into blocks.
#pragma once
#include "attention/problem.h"

namespace vlmk {

// What a query row's softmax left behind, as the main kernels add it: -lse in powers of two, -inf for a row
// that saw nothing, and -delta = dlse - rowsum(dO * O).
struct alignas(8) RowStatistics {
    float minus_lse, minus_delta;
};

struct BackwardLaunch {
    AttentionProblem problem;
    RowStatistics* statistics = nullptr;  // in the order of lse
    int block_rows = 0;                   // rows a block holds: as many warps as have work
    int row_blocks = 0;                   // of a head, or of all packed sequences
};

}  // namespace vlmk
