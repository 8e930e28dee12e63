#include "contrastive/loss_kernels.cuh"

VLMK_LOSS_KERNELS(float, float32)
