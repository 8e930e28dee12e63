// What every header of the device vocabulary needs.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "core/inline.h"

#define VLMK_DEVICE __device__ __forceinline__

namespace vlmk::gpu {

constexpr int kWarpLanes = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

VLMK_DEVICE int lane_index() { return static_cast<int>(threadIdx.x) % kWarpLanes; }

// The largest finite number is no stand-in for infinity: maxima start here and are guarded.
VLMK_DEVICE float infinity() { return __int_as_float(0x7f800000); }

}  // namespace vlmk::gpu
