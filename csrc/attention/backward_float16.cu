#include "attention/backward_kernels.cuh"

VLMK_BACKWARD_KERNELS(vlmk::f16, float16)
