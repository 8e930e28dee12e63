#pragma once
#include "patch_embed/problem.h"
#include "patch_embed/tiling.h"

namespace vlmk {

// How tiles of a patch are read or written at `pixels`, which has the strides of the source.
PatchTiling make_patch_tiling(const PatchEmbedProblem& problem, const void* pixels);

}  // namespace vlmk
