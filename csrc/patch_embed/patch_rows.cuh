// What a block knows about its patches: where their pixels are, and their tokens; and how pixels are normalised.
#pragma once
#include "gpu/device.cuh"
#include "patch_embed/launch.h"
#include "patch_embed/tiles.h"

namespace vlmk::gpu {

struct PatchRow {
    int64_t pixels;  // bytes from the first pixel
    int token;       // of all tokens
    int position;    // row of `position`, or -1
};
static_assert(sizeof(PatchRow) == kPatchRowInfoBytes, "plan and kernel agree about shared memory");

// x = pixel * scale + shift
struct PatchNorm {
    float scale, shift;
};
static_assert(sizeof(PatchNorm) == kPatchNormBytes, "plan and kernel agree about shared memory");

// Fills what is known about patches from `first` on; those past the last are like it. By all threads.
VLMK_DEVICE void find_patches(const PatchEmbedProblem& p, int first, int count, int element_bytes, PatchRow* rows) {
    const PatchSource& s = p.source;
    const int patches = static_cast<int>(s.patches()), last = static_cast<int>(p.batch) * patches - 1;
    const int height = static_cast<int>(s.grid[1]), width = static_cast<int>(s.grid[2]);
    for (int r = static_cast<int>(threadIdx.x); r < count; r += static_cast<int>(blockDim.x)) {
        const int patch = min(first + r, last), batch = patch / patches, at = patch % patches;
        const int w = at % width, h = at / width % height, t = at / width / height;
        const int64_t offset =
            batch * s.batch_stride + t * s.grid_stride[0] + h * s.grid_stride[1] + w * s.grid_stride[2];
        const int64_t token = p.first_patch_token() + at;
        rows[r] = {offset * element_bytes, static_cast<int>(batch * p.tokens() + token),
                   static_cast<int>(p.position_row(token))};
    }
}

// One for each channel where there are means or deviations, else one for all.
VLMK_DEVICE bool norms_differ(const PatchEmbedProblem& p) { return p.mean != nullptr || p.deviation != nullptr; }

VLMK_DEVICE void find_norms(const PatchEmbedProblem& p, PatchNorm* norms) {
    const int count = norms_differ(p) ? static_cast<int>(p.source.channels) : 1;
    for (int c = static_cast<int>(threadIdx.x); c < count; c += static_cast<int>(blockDim.x))
        norms[c] = {p.scale(c), p.shift(c)};
}

}  // namespace vlmk::gpu
