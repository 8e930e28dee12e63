// Block sizes of the CPU contrastive losses. Constants, so that results do not depend on the number of threads.
#pragma once
#include <cstdint>

namespace vlmk {

// The logits are made tile by tile: 4 MiB of fp32, small beside the features, large enough that packing them (1 / 1000
// of the arithmetic) does not matter.
constexpr int64_t kTile = 1024;

// Rows of a tile that one task turns into logits, and rows or columns whose gradient one task sums: 16 tasks a tile.
constexpr int64_t kStrip = 64;

}  // namespace vlmk
