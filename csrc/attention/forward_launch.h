// The parameter of the forward kernels: the problem, and how it is cut into blocks.
#pragma once
#include "attention/problem.h"
#include "core/inline.h"

namespace vlmk {

struct ForwardLaunch {
    AttentionProblem problem;
    int block_rows = 0;      // query rows of a block: as many warps as have work
    int row_blocks = 0;      // of a head, or of all packed sequences
    int heads_together = 1;  // heads of a group that share key and value, one after the other in the rows of a block

    // Parts that the keys are cut into, each with an output and a logsumexp of its own in the workspace: (splits, rows,
    // head_dim) and (splits, rows), with rows as those of lse.
    int splits = 1;

    int value_distance = 0;  // where all keys are in shared memory: from a key to its value, in bytes

    int key_stride = 0, value_stride = 0;  // of rows, in bytes
    float factor = 0.0f;                   // of products, to scores in units of log 2
};

// Rows of the workspace.
VLMK_HOST_DEVICE inline int64_t partial_rows(const AttentionProblem& p) {
    return (p.cu_seqlens_q == nullptr ? p.batch : 1) * p.heads_q * p.seqlen_q;
}

}  // namespace vlmk
