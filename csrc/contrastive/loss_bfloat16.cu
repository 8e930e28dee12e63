#include "contrastive/loss_kernels.cuh"

VLMK_LOSS_KERNELS(vlmk::bf16, bfloat16)
