// Gradients of what is added to tokens: sums over the batch, for the bias over all patches too. A thread has a column
// and a strip of tokens.
#pragma once
#include "gpu/convert.cuh"
#include "patch_embed/launch.h"
#include "patch_embed/tiles.h"

namespace vlmk::gpu {

template <class T, class From>
VLMK_DEVICE void add_tokens(const PatchLaunch& launch) {
    const PatchEmbedProblem& p = launch.problem;
    const int strip = static_cast<int>(blockIdx.x) % launch.strips;
    const int64_t column = int64_t{blockIdx.x} / launch.strips * kTokenThreads + threadIdx.x;
    if (column >= p.embed) return;
    const int tokens = static_cast<int>(p.tokens()), end = min((strip + 1) * launch.strip, tokens);
    const int64_t next_image = int64_t{tokens} * p.embed;
    float bias = 0.0f;
#pragma unroll 1
    for (int token = strip * launch.strip; token < end; ++token) {
        const From* from = static_cast<const From*>(p.grad_out) + token * p.embed + column;
        float sum = 0.0f;
#pragma unroll 4
        for (int image = 0; image < static_cast<int>(p.batch); ++image) sum += to_float(from[image * next_image]);
        const int64_t position = p.position_row(token), prefix = token - p.first_prefix_token();
        const bool is_prefix = prefix >= 0 && prefix < p.prefix_tokens;
        if (p.grad_position != nullptr && position >= 0)
            static_cast<T*>(p.grad_position)[position * p.embed + column] = from_float<T>(sum);
        if (p.grad_prefix != nullptr && is_prefix)
            static_cast<T*>(p.grad_prefix)[prefix * p.embed + column] = from_float<T>(sum);
        if (!is_prefix) bias += sum;
    }
    if (p.grad_bias != nullptr) launch.bias_parts[strip * p.embed + column] = bias;
}

template <class T>
VLMK_DEVICE void add_all_tokens(const PatchLaunch& launch) {
    switch (launch.problem.out_dtype) {
        case DType::f32:
            return add_tokens<T, float>(launch);
        case DType::bf16:
            return add_tokens<T, bf16>(launch);
        default:
            return add_tokens<T, f16>(launch);
    }
}

// In fp64: where strips cancel, fp32 would lose what is left.
template <class T>
VLMK_DEVICE void add_bias_parts(const PatchLaunch& launch) {
    const PatchEmbedProblem& p = launch.problem;
    const int64_t column = int64_t{blockIdx.x} * kTokenThreads + threadIdx.x;
    if (column >= p.embed) return;
    double sum = 0.0;
#pragma unroll 4
    for (int strip = 0; strip < launch.strips; ++strip) sum += launch.bias_parts[strip * p.embed + column];
    static_cast<T*>(p.grad_bias)[column] = from_float<T>(static_cast<float>(sum));
}

}  // namespace vlmk::gpu
