// Attention forward on the GPU in bfloat16, the kernels for each tile of forward_tiles.h.
#include "attention/forward.cuh"

VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 0, 64)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 1, 72)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 2, 80)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 3, 88)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 4, 96)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 5, 104)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 6, 112)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 7, 128)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 8, 64_padded)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 9, 128_padded)
VLMK_FORWARD_KERNEL(bfloat16, vlmk::bf16, 10, 256_padded)

VLMK_RESIDENT_KERNEL(bfloat16, vlmk::bf16, 0, 64)
VLMK_RESIDENT_KERNEL(bfloat16, vlmk::bf16, 1, 72)
VLMK_RESIDENT_KERNEL(bfloat16, vlmk::bf16, 2, 80)
VLMK_RESIDENT_KERNEL(bfloat16, vlmk::bf16, 3, 88)
VLMK_RESIDENT_KERNEL(bfloat16, vlmk::bf16, 4, 96)
VLMK_RESIDENT_KERNEL(bfloat16, vlmk::bf16, 5, 104)
