#include "attention/backward_kernels.cuh"

VLMK_BACKWARD_KERNELS(float16, vlmk::f16)
