// Patch embedding forward on the GPU in float32, of bytes and of float32 pixels.
#include "patch_embed/forward.cuh"

VLMK_PATCH_FORWARD_KERNEL(float32, float, uint8, uint8_t)
VLMK_PATCH_FORWARD_KERNEL(float32, float, float32, float)
