// Flash attention forward: the kernels of a dtype, named attention_forward_<dtype>_<head_dim of the tile>[_padded], and
// attention_forward_resident_<dtype>_<head_dim>; plan_forward.cpp makes the same names.
#pragma once
#include "attention/forward_resident.cuh"
#include "attention/forward_stream.cuh"

#define VLMK_FORWARD(T, index, name, Kernel)                                                     \
    extern "C" __global__ void __launch_bounds__(vlmk::ForwardTiles<T>::kTiles[index].threads()) \
        attention_forward_##name(const __grid_constant__ vlmk::ForwardLaunch launch) {           \
        vlmk::gpu::Kernel<T, index>(launch).run();                                               \
    }
#define VLMK_FORWARD_KERNEL(dtype, T, index, size) VLMK_FORWARD(T, index, dtype##_##size, ForwardStream)
#define VLMK_RESIDENT_KERNEL(dtype, T, index, size) VLMK_FORWARD(T, index, resident_##dtype##_##size, ForwardResident)

// Those of a 16-bit dtype, for each tile of forward_tiles.h. Dtypes are images of their own, so that they build side by
// side.
#define VLMK_FORWARD_KERNELS_OF_16_BITS(dtype, T) \
    VLMK_FORWARD_KERNEL(dtype, T, 0, 64)          \
    VLMK_FORWARD_KERNEL(dtype, T, 1, 72)          \
    VLMK_FORWARD_KERNEL(dtype, T, 2, 80)          \
    VLMK_FORWARD_KERNEL(dtype, T, 3, 88)          \
    VLMK_FORWARD_KERNEL(dtype, T, 4, 96)          \
    VLMK_FORWARD_KERNEL(dtype, T, 5, 104)         \
    VLMK_FORWARD_KERNEL(dtype, T, 6, 112)         \
    VLMK_FORWARD_KERNEL(dtype, T, 7, 128)         \
    VLMK_FORWARD_KERNEL(dtype, T, 8, 64_padded)   \
    VLMK_FORWARD_KERNEL(dtype, T, 9, 128_padded)  \
    VLMK_FORWARD_KERNEL(dtype, T, 10, 256_padded) \
    VLMK_RESIDENT_KERNEL(dtype, T, 0, 64)         \
    VLMK_RESIDENT_KERNEL(dtype, T, 1, 72)         \
    VLMK_RESIDENT_KERNEL(dtype, T, 2, 80)         \
    VLMK_RESIDENT_KERNEL(dtype, T, 3, 88)         \
    VLMK_RESIDENT_KERNEL(dtype, T, 4, 96)         \
    VLMK_RESIDENT_KERNEL(dtype, T, 5, 104)
