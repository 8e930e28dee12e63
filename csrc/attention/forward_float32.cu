// Attention forward on the GPU in float32, a kernel for each tile of forward_tiles.h.
#include "attention/forward.cuh"

VLMK_FORWARD_KERNEL(float32, float, 0, 64_padded)
VLMK_FORWARD_KERNEL(float32, float, 1, 128_padded)
VLMK_FORWARD_KERNEL(float32, float, 2, 256_padded)
