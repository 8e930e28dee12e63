#include "contrastive/loss_kernels.cuh"

VLMK_LOSS_KERNELS(vlmk::f16, float16)
