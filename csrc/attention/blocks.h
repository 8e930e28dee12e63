// Block sizes of the CPU attention kernels. They depend on the problem and on the size of the caches, never on the
// number of threads, so that results do not either.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/cache.h"
#include "core/inline.h"

namespace vlmk {

// Rows of queries handled together in the backward pass, heads of a group included: whole tiles of AMX. The forward
// pass takes as many as a panel has columns.
constexpr int64_t kBackwardRows = 64;

// Few rows go through the keys kStreamKeys at a time, which stay in the first and second cache, and through parts of
// about kPartKeys side by side.
constexpr int64_t kStreamKeys = 64, kPartKeys = 256;

// Rows of keys and values are asked for so many rows ahead: those of a head lie apart, so that the processor does not
// foresee them.
constexpr int64_t kRowsAhead = 16;

// Backward: the keys of a head are cut into chunks with their own dK, dV and partial dQ until this many tasks exist.
constexpr int64_t kBackwardTasks = 16;

// Keys of a block at most. Long blocks save rescaling and sums per row; a block's packed keys and values and the scores
// of its rows take up to half of the second-level cache.
VLMK_INLINE int64_t max_keys(int64_t head_dim) {
    constexpr int64_t kShortest = 128, kLongest = 640, kNumber = 4;
    const int64_t bytes_per_key = kNumber * (2 * head_dim + kBackwardRows);
    return std::clamp(cache_sizes().second / 2 / bytes_per_key, kShortest, kLongest);
}

// [0, total) in equal blocks, each a multiple of 16 but the last.
struct KeyBlocks {
    int64_t total, count, size;

    VLMK_INLINE KeyBlocks(int64_t keys, int64_t head_dim)
        : total(keys), count((keys + max_keys(head_dim) - 1) / max_keys(head_dim)) {
        size = count > 0 ? ((keys + count - 1) / count + 15) / 16 * 16 : 0;
        count = count > 0 ? (keys + size - 1) / size : 0;
    }
    VLMK_INLINE int64_t begin(int64_t block) const { return block * size; }
    VLMK_INLINE int64_t length(int64_t block) const { return block + 1 < count ? size : total - begin(block); }
};

}  // namespace vlmk
