#include "attention/backward_kernels.cuh"

VLMK_BACKWARD_KERNELS(vlmk::bf16, bfloat16)
