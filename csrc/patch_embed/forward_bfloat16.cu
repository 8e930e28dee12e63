// Patch embedding forward on the GPU in bfloat16, of bytes and of bfloat16 pixels.
#include "patch_embed/forward.cuh"

VLMK_PATCH_FORWARD_KERNEL(bfloat16, vlmk::bf16, uint8, uint8_t)
VLMK_PATCH_FORWARD_KERNEL(bfloat16, vlmk::bf16, bfloat16, vlmk::bf16)
