// Block sizes of the CPU contrastive losses: functions of the size of the caches, so that results do not depend on the
// number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/cache.h"
#include "core/inline.h"

namespace vlmk {

// Rows of a tile whose statistics are one part, and the least rows or columns of a task.
constexpr int64_t kStrip = 64;

// The logits are made tile by tile, in fp32. A tile takes half of the second-level cache, and the text features of its
// columns, packed for the product, are used for all of its rows.
constexpr int64_t kTileColumns = 512;
VLMK_INLINE int64_t tile_rows() {
    constexpr int64_t kRowBytes = kTileColumns * 4;
    return std::clamp<int64_t>(cache_sizes().second / 2 / kRowBytes / kStrip * kStrip, 256, 1024);
}

// Strips that a task handles together: two where that leaves every thread two tasks, because they share every pass over
// the packed features.
VLMK_INLINE int64_t strips_at_once(int64_t strips, int64_t threads) { return strips >= 4 * threads ? 2 : 1; }

}  // namespace vlmk
