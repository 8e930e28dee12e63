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
