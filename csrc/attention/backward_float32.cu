#include "attention/backward_kernels.cuh"

VLMK_BACKWARD_STATISTICS(float, float32)
VLMK_BACKWARD_MASKED(float, float32, 64)
VLMK_BACKWARD_MASKED_SPLIT(float, float32, 128)
VLMK_BACKWARD_MASKED_SPLIT(float, float32, 256)
