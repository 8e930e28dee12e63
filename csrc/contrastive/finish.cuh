// From h_i = sum_j H_ij v_j to the gradient of the raw row u_i: scale * h_i, or through the normalisation scale * (h_i
// - f_i^2 u_i <u_i, h_i>). A warp a row.
#pragma once
#include "contrastive/gpu_tiles.h"
#include "contrastive/launch.h"
#include "gpu/convert.cuh"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {

template <class T>
VLMK_DEVICE void finish_gradient(const FinishLaunch& launch) {
    const ContrastiveProblem& p = launch.problem;
    const int index = static_cast<int>(blockIdx.x * (kFinishThreads / kWarpLanes) + threadIdx.x / kWarpLanes);
    if (index >= launch.rows) return;
    const bool image = launch.side == Side::image;
    const Features &mine = image ? p.image : p.text, &others = image ? p.text : p.image;
    const int64_t row = launch.first + index, partner = image ? row + p.label_offset : row - p.label_offset;
    const T* features = static_cast<const T*>(mine.data) + row * mine.row_stride;
    T* to = static_cast<T*>(mine.grad) + row * p.dim;

    // The positive pair, which the sum lacks.
    const bool pair = launch.diagonal != nullptr && partner >= 0 && partner < others.count;
    const float weight = pair ? launch.diagonal[image ? row : partner] : 0.0f;
    const T* other = static_cast<const T*>(others.data) + (pair ? partner : 0) * others.row_stride;
    const FeatureSums sum = launch.sum.from(index);
    const float down = launch.range == nullptr ? 1.0f : launch.range->down, scale = *p.scale;
    const auto h = [&](int d) {
        float rest = 0.0f;
        if (sum.halved())
            rest = __uint_as_float(uint32_t{sum.upper[d]} << 16 | sum.lower[d]) * down;
        else if (launch.sum.exist())
            rest = sum.whole[d] * down;
        return pair ? rest + weight * to_float(other[d]) : rest;
    };

    float along = 0.0f;
    const float factor = mine.factor == nullptr ? 0.0f : mine.factor[row];
    if (mine.factor != nullptr) {
#pragma unroll 4
        for (int d = lane_index(); d < static_cast<int>(p.dim); d += kWarpLanes) along += to_float(features[d]) * h(d);
        along = reduce_add(along) * factor * factor;
    }
#pragma unroll 4
    for (int d = lane_index(); d < static_cast<int>(p.dim); d += kWarpLanes)
        to[d] = from_float<T>(scale * (h(d) - along * to_float(features[d])));
}

}  // namespace vlmk::gpu
