// Block sizes of the CPU patch embedding: functions of the problem and of the size of the caches, so that results do
// not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/cache.h"
#include "core/inline.h"

namespace vlmk {

constexpr int64_t kPatchRows = 128;   // patches of a block: register tiles of rows that share a panel of the weight
constexpr int64_t kWeightChunk = 64;  // pixels of a patch whose weight gradient one task owns, at least

// Patches summed per product of the weight gradient: their gradients take up to half of the second-level cache.
VLMK_INLINE int64_t gradient_patches(int64_t embed) {
    const int64_t fitting = cache_sizes().second / 2 / (4 * std::max<int64_t>(embed, 1));
    return std::clamp<int64_t>(fitting / 16 * 16, 64, 512);
}

}  // namespace vlmk
