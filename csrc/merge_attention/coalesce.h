#pragma once
#include "merge_attention/problem.h"

namespace vlmk {

// Joins neighbouring row dimensions that are one run in memory in every tensor, and drops those of size 1: contiguous
// tensors end up with a single dimension, whose rows need no division to find.
void coalesce_rows(MergeProblem& problem);

}  // namespace vlmk
