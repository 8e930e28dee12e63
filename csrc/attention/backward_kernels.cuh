// The backward kernels of a dtype. Their names are attention_backward_<what>_<dtype>_<head_dim>; plan_backward.cpp
// makes the same ones.
#pragma once
#include "attention/backward.cuh"
#include "attention/backward_resident.cuh"
#include "attention/backward_statistics.cuh"

#define VLMK_BACKWARD_KERNEL(name, bounds, ...)                                    \
    extern "C" __global__ void __launch_bounds__ bounds attention_backward_##name( \
        const __grid_constant__ vlmk::BackwardLaunch launch) {                     \
        __VA_ARGS__;                                                               \
    }
// fp32 needs its registers more than a third block an SM, which the compiler would else make room for.
#define VLMK_BACKWARD_SIDE(what, T, dtype, head_dim, held, first, second, masked)                        \
    VLMK_BACKWARD_KERNEL(                                                                                \
        what##_##dtype##_##head_dim,                                                                     \
        (vlmk::backward_threads(vlmk::Held::held, sizeof(T), head_dim, masked), sizeof(T) == 4 ? 1 : 0), \
        vlmk::gpu::Backward<T, vlmk::Held::held, head_dim, first, second, masked>(launch).run())
#define VLMK_BACKWARD_RESIDENT(T, dtype, head_dim, keys)                \
    VLMK_BACKWARD_KERNEL(resident##keys##_##dtype##_##head_dim, (keys), \
                         vlmk::gpu::ResidentBackward<T, head_dim, keys>(launch).run())

#define VLMK_BACKWARD_PLAIN(T, dtype, head_dim)                           \
    VLMK_BACKWARD_SIDE(keys, T, dtype, head_dim, keys, true, true, false) \
    VLMK_BACKWARD_SIDE(queries, T, dtype, head_dim, queries, true, false, false)
#define VLMK_BACKWARD_MASKED(T, dtype, head_dim)                                \
    VLMK_BACKWARD_SIDE(masked_keys, T, dtype, head_dim, keys, true, true, true) \
    VLMK_BACKWARD_SIDE(masked_queries, T, dtype, head_dim, queries, true, false, true)
// With a kernel for each of dK and dV.
#define VLMK_BACKWARD_MASKED_SPLIT(T, dtype, head_dim)                            \
    VLMK_BACKWARD_SIDE(masked_key, T, dtype, head_dim, keys, true, false, true)   \
    VLMK_BACKWARD_SIDE(masked_value, T, dtype, head_dim, keys, false, true, true) \
    VLMK_BACKWARD_SIDE(masked_queries, T, dtype, head_dim, queries, true, false, true)

#define VLMK_BACKWARD_STATISTICS(T, dtype) \
    VLMK_BACKWARD_KERNEL(statistics_##dtype, (vlmk::kStatisticsThreads), vlmk::gpu::backward_statistics<T>(launch))

// Of 16-bit numbers.
#define VLMK_BACKWARD_KERNELS(T, dtype)       \
    VLMK_BACKWARD_STATISTICS(T, dtype)        \
    VLMK_BACKWARD_RESIDENT(T, dtype, 64, 128) \
    VLMK_BACKWARD_RESIDENT(T, dtype, 64, 256) \
    VLMK_BACKWARD_PLAIN(T, dtype, 32)         \
    VLMK_BACKWARD_MASKED(T, dtype, 32)        \
    VLMK_BACKWARD_PLAIN(T, dtype, 64)         \
    VLMK_BACKWARD_MASKED(T, dtype, 64)        \
    VLMK_BACKWARD_PLAIN(T, dtype, 72)         \
    VLMK_BACKWARD_MASKED(T, dtype, 72)        \
    VLMK_BACKWARD_PLAIN(T, dtype, 80)         \
    VLMK_BACKWARD_MASKED(T, dtype, 80)        \
    VLMK_BACKWARD_PLAIN(T, dtype, 88)         \
    VLMK_BACKWARD_MASKED(T, dtype, 88)        \
    VLMK_BACKWARD_PLAIN(T, dtype, 96)         \
    VLMK_BACKWARD_MASKED(T, dtype, 96)        \
    VLMK_BACKWARD_PLAIN(T, dtype, 104)        \
    VLMK_BACKWARD_MASKED(T, dtype, 104)       \
    VLMK_BACKWARD_PLAIN(T, dtype, 112)        \
    VLMK_BACKWARD_MASKED(T, dtype, 112)       \
    VLMK_BACKWARD_PLAIN(T, dtype, 128)        \
    VLMK_BACKWARD_MASKED(T, dtype, 128)       \
    VLMK_BACKWARD_MASKED_SPLIT(T, dtype, 256)
