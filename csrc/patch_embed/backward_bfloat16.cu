// Patch embedding backward on the GPU in bfloat16.
#include "patch_embed/backward.cuh"

VLMK_PATCH_BACKWARD_KERNELS(bfloat16, vlmk::bf16)
