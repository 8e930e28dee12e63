// Tile choices of the CUDA attention kernels, with their reasons.
#pragma once
#include "core/inline.h"

namespace vlmk {

// A block of `warps` warps, each of which owns `row_tiles` * 16 query rows, goes through the keys `keys` at a time.
struct ForwardTile {
    int head_dim, least;  // takes head dims from `least` on; what is not head_dim itself is rounded up at run time
    int row_tiles, keys;
    bool query_in_shared;  // read again for every block of keys, where registers are short
    int element_bytes = 2, warps = 4;

    VLMK_HOST_DEVICE constexpr bool exact() const { return least == head_dim; }
    VLMK_HOST_DEVICE constexpr int threads() const { return warps * 32; }
    VLMK_HOST_DEVICE constexpr int warp_rows() const { return row_tiles * 16; }
    VLMK_HOST_DEVICE constexpr int rows() const { return warps * warp_rows(); }

    // Whether there is a kernel for keys that all stay in shared memory, where queries have no place. They, and the
    // output, pass through room that each warp has for 16 rows: whole, or 64 bytes of each.
    VLMK_HOST_DEVICE constexpr bool resident() const { return exact() && element_bytes == 2 && !query_in_shared; }
    VLMK_HOST_DEVICE constexpr int part_bytes() const { return 16 * (head_dim % 16 == 8 ? row_bytes() : 64); }

    // Rows in shared memory are an odd number of 16-byte chunks apart.
    VLMK_HOST_DEVICE constexpr int row_bytes() const { return (head_dim * element_bytes / 16 | 1) * 16; }
    // Two stages of keys and values; queries are apart, or pass through the second stage before it is needed.
    VLMK_HOST_DEVICE constexpr int query_offset() const { return (query_in_shared ? 4 : 2) * keys * row_bytes(); }
    VLMK_HOST_DEVICE constexpr int shared_bytes() const {
        const int with_query = query_offset() + rows() * row_bytes(), stages = 4 * keys * row_bytes();
        return with_query > stages ? with_query : stages;
    }
};

// Tiles by element type; the first that takes a head_dim is the one for it.
template <class T>
struct ForwardTiles {
    // 32 rows a warp halve what shared memory has to deliver for a product: ldmatrix would else take as long as the
    // tensor cores. Four warps: with up to 255 registers a thread two blocks share a multiprocessor, whose barriers and
    // loads then hide behind each other. 64 keys amortise the work per block of keys; 48 where output and query leave
    // no registers for more.
    static constexpr ForwardTile kTiles[] = {
        {64, 64, 2, 64, false},
        {72, 72, 2, 64, false},
        {80, 80, 2, 64, false},
        {88, 88, 2, 64, false},
        {96, 96, 2, 48, false},
        {104, 104, 2, 48, false},
        {112, 112, 2, 48, true},  // 75 KB: two blocks an SM of 164
                                  // KB
        {128, 128, 2, 48, true},  // 85 KB, below the 99 KB of sm_86, 89 and 120
        {64, 8, 2, 64, false},
        {128, 8, 2, 48, true},
        {256, 8, 1, 32, true},  // the output alone takes 128
                                // registers; 99 KB
    };
};

// A product of fp32 is three of tf32, which leaves nothing else to count.
template <>
struct ForwardTiles<float> {
    static constexpr ForwardTile kTiles[] = {
        {64, 8, 1, 32, true, 4},
        {128, 8, 1, 32, true, 4},     // 99 KB
        {256, 8, 1, 16, true, 4, 2},  // 97.5 KB
    };
};

// Few queries leave most of a GPU idle: keys are then cut into parts, until there are two blocks for each of 132
// multiprocessors (those of an H100; a smaller one has a second wave). A part has at least kMinSplitTiles blocks of
// keys, and keys are this many times the queries, or reading and writing the parts' outputs would cost more than it
// brings.
constexpr int kSplitBlocks = 264;
constexpr int kMinSplitTiles = 4;
constexpr int kMinKeysPerQuery = 4;
constexpr int kMaxSplits = 32;  // one for each lane of the warp that combines them

// Up to so many blocks of keys, blocks have no more warps than there are rows for: windows of 64 tokens then have four
// blocks on a multiprocessor that load while others compute, instead of two.
constexpr int kShortTiles = 2;

// Where all keys of a head are in shared memory, they are at most so many blocks: more would not fit.
constexpr int kMostResidentBlocks = 8;

// A warp combines the parts of a row.
constexpr int kCombineThreads = 128;

}  // namespace vlmk
