#include "attention/backward_kernels.cuh"

VLMK_BACKWARD_KERNELS(bfloat16, vlmk::bf16)
