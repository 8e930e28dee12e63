// Patch embedding forward on the GPU in float16, of bytes and of float16 pixels.
#include "patch_embed/forward.cuh"

VLMK_PATCH_FORWARD_KERNEL(float16, vlmk::f16, uint8, uint8_t)
VLMK_PATCH_FORWARD_KERNEL(float16, vlmk::f16, float16, vlmk::f16)
