// The parameters of the CUDA kernels: the problem, and how it is cut into blocks.
#pragma once
#include "patch_embed/problem.h"
#include "patch_embed/tiling.h"

namespace vlmk {

struct PatchLaunch {
    PatchEmbedProblem problem;
    PatchTiling tiling;
    int block_rows = 0;       // patches of a block
    int row_blocks = 0;       // of patches
    int column_blocks = 0;    // of the embedding, or of the weight's gradient along a patch
    int weight_bytes = 0;     // of an access to the weight
    int table_offset = 0;     // of what a block knows about patches, in shared memory
    bool wide_out = false;    // rows of the embedding can be accessed 16 bytes at a time,
    bool wide_grads = false;  // those of grad_out as copies

    // Gradients of the weight: patches are cut into `parts` of `part_patches`, whose sums go to the workspace (parts,
    // embed, elements) where there are several.
    int parts = 1, part_patches = 0;
    // Gradients of tokens: each strip leaves its part of the bias in bias_parts (strips, embed).
    int strip = 0, strips = 0;
    float* bias_parts = nullptr;
};

}  // namespace vlmk
