// Block sizes of the CPU patch embedding: functions of the problem and of the size of the caches. Results do not
// depend on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/cache.h"
#include "core/inline.h"

namespace vlmk {

// Patches of a block: about kPatchRows, whole rows of tiles that share every pass over the weight, in blocks that are
// as even as possible and as many as occupy all threads. Patches do not meet, so that results do not depend on it.
VLMK_INLINE int64_t patch_rows(int64_t patches, int threads) {
    constexpr int64_t kPatchRows = 128, kTile = 16;
    const int64_t wanted = std::max<int64_t>((patches + kPatchRows / 2) / kPatchRows, 1), many = std::max(threads, 1),
                  blocks = (wanted + many - 1) / many * many;
    return std::max<int64_t>((patches + blocks * kTile - 1) / (blocks * kTile), 1) * kTile;
}

// Pixels of a patch whose weight gradient one task owns: every task reads the gradients of all tokens, so as few tasks
// as keep the threads busy. Sums of different pixels are apart, so that results do not depend on it.
VLMK_INLINE int64_t weight_chunk(int64_t elements, int threads) {
    return std::clamp<int64_t>(elements / (2 * std::max(threads, 1)), 64, 512);
}

// Patches summed per product of the weight gradient: their gradients, as floats and in the units of the product, take
// up to the second-level cache.
VLMK_INLINE int64_t gradient_patches(int64_t embed) {
    constexpr int64_t kBytes = 10;
    const int64_t fitting = cache_sizes().second / (kBytes * std::max<int64_t>(embed, 1));
    return std::clamp<int64_t>(fitting / 16 * 16, 64, 512);
}

}  // namespace vlmk
