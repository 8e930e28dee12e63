// Block sizes of the CPU attention kernels. They depend on the problem alone, never on the number of threads, so that
// results do not either.
#pragma once
#include <cstdint>

namespace vlmk {

// Rows of queries handled together, heads of a group included. 48 and 64 are whole register tiles of 6 rows plus
// little; the score block (rows x keys, fp32) then takes 60 to 80 KiB of a 512 KiB or larger second-level cache, next
// to the packed keys and values it is multiplied with.
constexpr int64_t kForwardRows = 48;
constexpr int64_t kBackwardRows = 64;

// Keys of a block at most. Long blocks save rescaling; one block for everything up to 320 keys covers the 197- and
// 257-token towers without any.
constexpr int64_t kMaxKeys = 640;

// A thread gets its heads in about this many portions: few, so that the next head is mostly known; several, because
// threads are not equally fast.
constexpr int64_t kTasksPerThread = 8;

// Backward: the keys of a head are cut into chunks with their own dK, dV and partial dQ until this many tasks exist.
constexpr int64_t kBackwardTasks = 16;

// [0, total) in equal blocks of at most kMaxKeys keys, each a multiple of 16 but the last.
struct KeyBlocks {
    int64_t total, count, size;

    explicit KeyBlocks(int64_t keys) : total(keys), count((keys + kMaxKeys - 1) / kMaxKeys) {
        size = count > 0 ? ((keys + count - 1) / count + 15) / 16 * 16 : 0;
        count = count > 0 ? (keys + size - 1) / size : 0;
    }
    int64_t begin(int64_t block) const { return block * size; }
    int64_t length(int64_t block) const { return block + 1 < count ? size : total - begin(block); }
};

}  // namespace vlmk
