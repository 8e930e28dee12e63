// Attention forward on the GPU in bfloat16, a kernel for each tile of tiles.h.
#include "attention/forward.cuh"

VLMK_FORWARD_KERNELS(bfloat16, vlmk::bf16)
