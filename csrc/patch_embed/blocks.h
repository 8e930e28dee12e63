// Block sizes of the CPU patch embedding; functions of the problem alone, so that results do not depend on the number
// of threads.
#pragma once
#include <cstdint>

namespace vlmk {

constexpr int64_t kPatchRows = 64;    // patches of a block: register tiles of rows that share a panel of the weight
constexpr int64_t kWeightChunk = 64;  // pixels of a patch whose weight gradient one task owns, at least
constexpr int64_t kGradientPatches = 256;  // patches summed per product of the weight gradient: their gradients and
                                           // pixels stay in the second-level cache

}  // namespace vlmk
