// Block sizes of the CPU contrastive losses: functions of the size of the caches, so that results do not depend on the
// number of threads.
#pragma once
#include <cstdint>

#include "core/cache.h"
#include "core/inline.h"

namespace vlmk {

// Rows of a tile that one task turns into logits, and rows or columns whose gradient one task sums.
constexpr int64_t kStrip = 64;

// The logits are made tile by tile, in fp32. A side of 1024 (4 MiB, small beside the features) makes the packing of
// features a thousandth of the arithmetic; where the caches are smaller a tile of 512 stays closer to them.
VLMK_INLINE int64_t tile_side() { return cache_sizes().second >= int64_t{1} << 20 ? 1024 : 512; }

}  // namespace vlmk
