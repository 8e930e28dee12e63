// Patch embedding backward on the GPU in float32.
#include "patch_embed/backward.cuh"

VLMK_PATCH_BACKWARD_KERNELS(float32, float)
