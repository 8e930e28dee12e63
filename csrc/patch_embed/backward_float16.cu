// Patch embedding backward on the GPU in float16.
#include "patch_embed/backward.cuh"

VLMK_PATCH_BACKWARD_KERNELS(float16, vlmk::f16)
