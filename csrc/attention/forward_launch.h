// The parameter of the forward kernels: the problem, and how it is cut into blocks.
#pragma once
#include "attention/problem.h"

namespace vlmk {

struct ForwardLaunch {
    AttentionProblem problem;
    int block_rows = 0;                    // query rows of a block: as many warps as have work
    int row_blocks = 0;                    // of a head, or of all packed sequences
    int key_stride = 0, value_stride = 0;  // of rows, in bytes
    float factor = 0.0f;                   // of products, to scores in units of log 2
    int heads_together = 1;  // heads of a group that share key and value, one after the other in the rows of a block
};

}  // namespace vlmk
