// The backward kernels of a dtype. They are named attention_backward_<what>_<dtype>[_<head_dim>]; plan_backward.cpp
// makes the same names.
#pragma once
#include "attention/backward.cuh"
#include "attention/backward_statistics.cuh"

#define VLMK_BACKWARD(name, ...)                                                                   \
    extern "C" __global__ void __launch_bounds__(vlmk::gpu::BackwardKernel<__VA_ARGS__>::kThreads) \
        attention_backward_##name(const __grid_constant__ vlmk::AttentionProblem problem) {        \
        vlmk::gpu::backward<vlmk::gpu::BackwardKernel<__VA_ARGS__>>(problem);                      \
    }
#define VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, head_dim)                                   \
    VLMK_BACKWARD(keys_##dtype##_##head_dim, T, vlmk::Held::keys, head_dim, true, true) \
    VLMK_BACKWARD(queries_##dtype##_##head_dim, T, vlmk::Held::queries, head_dim, true, false)

#define VLMK_BACKWARD_KERNELS(dtype, T)                                                                 \
    extern "C" __global__ void __launch_bounds__(vlmk::kStatisticsThreads)                              \
        attention_backward_statistics_##dtype(const __grid_constant__ vlmk::AttentionProblem problem) { \
        vlmk::gpu::backward_statistics<T>(problem);                                                     \
    }                                                                                                   \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 32)                                                             \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 64)                                                             \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 72)                                                             \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 80)                                                             \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 88)                                                             \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 96)                                                             \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 104)                                                            \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 112)                                                            \
    VLMK_BACKWARD_OF_HEAD_DIM(dtype, T, 128)                                                            \
    VLMK_BACKWARD(key_##dtype##_256, T, vlmk::Held::keys, 256, true, false)                             \
    VLMK_BACKWARD(value_##dtype##_256, T, vlmk::Held::keys, 256, false, true)                           \
    VLMK_BACKWARD(queries_##dtype##_256, T, vlmk::Held::queries, 256, true, false)
