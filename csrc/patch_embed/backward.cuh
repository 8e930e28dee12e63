// The kernels of the backward pass in one dtype; plan_backward.cpp makes the same names.
#pragma once
#include "patch_embed/backward_pixels.cuh"
#include "patch_embed/backward_tokens.cuh"
#include "patch_embed/backward_weight.cuh"

#define VLMK_PATCH_KERNEL(name, threads, blocks, ...)                          \
    extern "C" __global__ void __launch_bounds__(threads, blocks)              \
        patch_embed_##name(const __grid_constant__ vlmk::PatchLaunch launch) { \
        __VA_ARGS__;                                                           \
    }

#define VLMK_PATCH_BACKWARD_KERNELS(dtype, T)                                                                         \
    VLMK_PATCH_KERNEL(weight_gradient_##dtype##_uint8, vlmk::kPatchThreads, 2,                                        \
                      vlmk::gpu::PatchWeightGradient<T, uint8_t>(launch).run())                                       \
    VLMK_PATCH_KERNEL(weight_gradient_##dtype##_##dtype, vlmk::kPatchThreads, 2,                                      \
                      vlmk::gpu::PatchWeightGradient<T, T>(launch).run())                                             \
    VLMK_PATCH_KERNEL(weight_parts_##dtype, vlmk::kPartThreads, 1, vlmk::gpu::add_weight_parts<T>(launch))            \
    VLMK_PATCH_KERNEL(pixel_gradient_##dtype, vlmk::kPatchThreads, 2, vlmk::gpu::PatchPixelGradient<T>(launch).run()) \
    VLMK_PATCH_KERNEL(token_gradients_##dtype, vlmk::kTokenThreads, 1, vlmk::gpu::add_all_tokens<T>(launch))          \
    VLMK_PATCH_KERNEL(bias_parts_##dtype, vlmk::kTokenThreads, 1, vlmk::gpu::add_bias_parts<T>(launch))
