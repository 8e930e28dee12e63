// Attention forward on the GPU in float16, a kernel for each tile of tiles.h.
#include "attention/forward.cuh"

VLMK_FORWARD_KERNELS(float16, vlmk::f16)
