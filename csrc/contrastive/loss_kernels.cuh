// The kernels of a dtype. Their names are contrastive_<what>_<dtype>; plan.cpp makes the same ones.
#pragma once
#include "contrastive/finish.cuh"
#include "contrastive/info_nce.cuh"
#include "contrastive/products.cuh"
#include "contrastive/sigmoid.cuh"
#include "contrastive/statistics.cuh"

#define VLMK_LOSS_KERNEL(name, Launch, threads, ...)                      \
    extern "C" __global__ void __launch_bounds__(threads)                 \
        contrastive_##name(const __grid_constant__ vlmk::Launch launch) { \
        __VA_ARGS__;                                                      \
    }
#define VLMK_LOSS_KERNELS(T, dtype)                                                                                    \
    VLMK_LOSS_KERNEL(statistics_##dtype, InfoNceLaunch, vlmk::kLossThreads, vlmk::gpu::info_nce_statistics<T>(launch)) \
    VLMK_LOSS_KERNEL(info_nce_##dtype, InfoNceLaunch, vlmk::kLossThreads,                                              \
                     vlmk::gpu::GradientTile<T, vlmk::gpu::InfoNce<T>>(launch).run())                                  \
    VLMK_LOSS_KERNEL(sigmoid_##dtype, SigmoidLaunch, vlmk::kLossThreads,                                               \
                     vlmk::gpu::GradientTile<T, vlmk::gpu::Sigmoid<T>>(launch).run())                                  \
    VLMK_LOSS_KERNEL(products_##dtype, ProductsLaunch, vlmk::kLossThreads, vlmk::gpu::add_products<T>(launch))         \
    VLMK_LOSS_KERNEL(finish_##dtype, FinishLaunch, vlmk::kFinishThreads, vlmk::gpu::finish_gradient<T>(launch))
