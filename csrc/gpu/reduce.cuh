// Reductions over neighbouring lanes. Every lane of a group gets the result, by the same tree on every lane: the bits
// do not depend on the lane. All lanes of the warp take part.
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

template <int kLanes = kWarpLanes>
VLMK_DEVICE float reduce_add(float value) {
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kWholeWarp, value, step);
    return value;
}

template <int kLanes = kWarpLanes>
VLMK_DEVICE float reduce_max(float value) {
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, step));
    return value;
}

// The same over the lanes whose numbers are equal modulo kApart.
template <int kApart>
VLMK_DEVICE float reduce_add_apart(float value) {
#pragma unroll
    for (int step = kWarpLanes / 2; step >= kApart; step /= 2) value += __shfl_xor_sync(kWholeWarp, value, step);
    return value;
}

template <int kApart>
VLMK_DEVICE float reduce_max_apart(float value) {
#pragma unroll
    for (int step = kWarpLanes / 2; step >= kApart; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, step));
    return value;
}

}  // namespace vlmk::gpu
