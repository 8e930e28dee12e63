#pragma once
#include "patch_embed/problem.h"
#include "patch_embed/tiling.h"

namespace vlmk {

// How tiles of a patch are read or written at `pixels`, which has the strides of the source.
PatchTiling make_patch_tiling(const PatchEmbedProblem& problem, const void* pixels);

// Lets the bytes of `rows` patches at a time go by whole lines where that is better and takes no more memory.
void go_by_lines(PatchTiling& tiling, const PatchEmbedProblem& problem, int rows, int most_bytes);

}  // namespace vlmk
