// Attention forward on the GPU in bfloat16.
#include "attention/forward.cuh"

VLMK_FORWARD_KERNELS_OF_16_BITS(bfloat16, vlmk::bf16)
