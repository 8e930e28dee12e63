// The parameter of the backward kernels: the problem, and how it is cut into blocks.
#pragma once
#include "attention/problem.h"

namespace vlmk {

struct BackwardLaunch {
    AttentionProblem problem;
    int block_rows = 0;  // rows a block holds: as many warps as have work
    int row_blocks = 0;  // of a head, or of all packed sequences
};

}  // namespace vlmk
