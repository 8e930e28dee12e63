// Block sizes of the CPU attention kernels. They do not depend on the number of threads, so that results do not either.
#pragma once
#include <cstdint>

#include "core/inline.h"

namespace vlmk {

// Rows of queries handled together in the backward pass, heads of a group included: whole tiles of AMX. The forward
// pass takes as many as a panel has columns.
constexpr int64_t kBackwardRows = 64;

// Few rows, as in decoding: so many at most. They go through the keys kStreamKeys at a time, which stay in the first
// and second cache, and through parts of kPartKeys side by side.
constexpr int64_t kFewRows = 32, kStreamKeys = 64, kPartKeys = 256;

// Rows of keys and values are asked for so many rows ahead: those of a head lie apart, so that the processor does not
// foresee them.
constexpr int64_t kRowsAhead = 16;

// Backward: the keys of a head are cut into chunks with their own dK, dV and partial dQ until this many tasks exist.
constexpr int64_t kBackwardTasks = 16;

// Keys of a block: its scores, probabilities and packed keys and values, with the rows' queries and output, stay in the
// first-level cache (forward) or pass through it while little of them is written back (backward).
constexpr int64_t kForwardKeys = 64, kBackwardKeys = 128;

// [0, total) in blocks of `size` keys. The last one is longer rather than followed by a short one, whose row of tiles
// would be mostly zeros.
struct KeyBlocks {
    int64_t total, size, count;
    int64_t longest;  // of all blocks at least, and a multiple of 16: room for whole tiles

    VLMK_INLINE KeyBlocks(int64_t keys, int64_t block_size)
        : total(keys),
          size(block_size),
          count(keys > kRest ? (keys - kRest + size - 1) / size : keys > 0),
          longest(count == 1 ? (keys + kRest - 1) / kRest * kRest : size + kRest) {}
    VLMK_INLINE int64_t begin(int64_t block) const { return block * size; }
    VLMK_INLINE int64_t end(int64_t block) const { return block + 1 < count ? begin(block + 1) : total; }
    VLMK_INLINE int64_t length(int64_t block) const { return end(block) - begin(block); }

  private:
    static constexpr int64_t kRest = 16;
};

}  // namespace vlmk
