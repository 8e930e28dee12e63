// The contract of the patch embedding: everything a backend needs to know, as plain data. Also part of the parameters
// of the CUDA kernels.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/inline.h"
#include "core/per_isa.h"

namespace vlmk {

// Patches on a grid of (grid[0], grid[1], grid[2]) per batch item, each of (channels, patch[0], patch[1], patch[2])
// pixels (time, row, column). Any layout is a choice of strides, in elements: an image, a video, or patches that are
// cut already (a grid of 1 x 1 x N).
struct PatchSource {
    const void* data = nullptr;
    DType dtype = DType::f32;  // u8, f32, bf16, f16
    int64_t grid[3] = {1, 1, 1};
    int64_t channels = 0;
    int64_t patch[3] = {1, 1, 1};
    int64_t batch_stride = 0, grid_stride[3] = {}, channel_stride = 0, pixel_stride[3] = {};

    VLMK_HOST_DEVICE VLMK_INLINE int64_t patches() const { return grid[0] * grid[1] * grid[2]; }
    VLMK_HOST_DEVICE VLMK_INLINE int64_t elements() const { return channels * patch[0] * patch[1] * patch[2]; }
};

struct PatchEmbedProblem {
    PatchSource source;
    int64_t batch = 0, embed = 0, prefix_tokens = 0;
    bool prefix_behind = false;

    // Per channel x = (pixel - mean) / deviation, of uint8 (pixel / 255 - mean) / deviation; null where absent.
    const float* mean = nullptr;
    const float* deviation = nullptr;

    // All contiguous, in `dtype`; null where absent.
    DType dtype = DType::f32;
    const void* weight = nullptr;    // (embed, elements)
    const void* bias = nullptr;      // (embed)
    const void* position = nullptr;  // (position_tokens, embed): all tokens, or patches alone
    int64_t position_tokens = 0;
    const void* prefix = nullptr;  // (prefix_tokens, embed)

    void* out = nullptr;  // (batch, tokens, embed), contiguous
    DType out_dtype = DType::f32;

    int threads = 1;

    // Backward only: grad_out is (batch, tokens, embed) in out_dtype, gradients are in `dtype`; null where not wanted.
    const void* grad_out = nullptr;
    void* grad_weight = nullptr;
    void* grad_bias = nullptr;
    void* grad_position = nullptr;
    void* grad_prefix = nullptr;
    void* grad_pixels = nullptr;  // strides of the source, with the pixels' dtype

    float* workspace = nullptr;  // CUDA only: as many numbers as the plan asks for

    // x = pixel * scale + shift
    VLMK_HOST_DEVICE VLMK_INLINE float scale(int64_t channel) const {
        const double unit = source.dtype == DType::u8 ? 1.0 / 255.0 : 1.0;
        return static_cast<float>(deviation == nullptr ? unit : unit / deviation[channel]);
    }
    VLMK_HOST_DEVICE VLMK_INLINE float shift(int64_t channel) const {
        const double offset = mean == nullptr ? 0.0 : -static_cast<double>(mean[channel]);
        return static_cast<float>(deviation == nullptr ? offset : offset / deviation[channel]);
    }

    VLMK_HOST_DEVICE VLMK_INLINE int64_t tokens() const { return source.patches() + prefix_tokens; }
    VLMK_HOST_DEVICE VLMK_INLINE int64_t first_patch_token() const { return prefix_behind ? 0 : prefix_tokens; }
    VLMK_HOST_DEVICE VLMK_INLINE int64_t first_prefix_token() const { return prefix_behind ? source.patches() : 0; }
    // Row of `position` that belongs to a token, or -1.
    VLMK_HOST_DEVICE VLMK_INLINE int64_t position_row(int64_t token) const {
        if (position_tokens == tokens()) return token;
        const int64_t row = token - first_patch_token();
        return position_tokens > 0 && row >= 0 && row < position_tokens ? row : -1;
    }
};

VLMK_DECLARE_PER_ISA(void patch_embed_forward(const PatchEmbedProblem& problem))
VLMK_DECLARE_PER_ISA(void patch_embed_backward(const PatchEmbedProblem& problem))

}  // namespace vlmk
