// Attention forward on the GPU in float16.
#include "attention/forward.cuh"

VLMK_FORWARD_KERNELS_OF_16_BITS(float16, vlmk::f16)
