// Tile choices of the CUDA attention kernels, with their reasons.
#pragma once
#include "core/inline.h"

namespace vlmk {

// Four warps a block: with up to 255 registers a thread two blocks share a multiprocessor, whose barriers and loads
// then hide behind each other.
constexpr int kForwardThreads = 128;
constexpr int kForwardWarps = kForwardThreads / 32;

// A warp owns `row_tiles` * 16 query rows; a block goes through the keys `keys` at a time.
struct ForwardTile {
    int head_dim, row_tiles, keys;
    bool query_in_shared;  // read again for every block of keys, where registers are short
    bool exact;            // for head_dim alone; else for smaller ones too, rounded up to 16 at run time

    VLMK_HOST_DEVICE constexpr int warp_rows() const { return row_tiles * 16; }
    VLMK_HOST_DEVICE constexpr int rows() const { return kForwardWarps * warp_rows(); }

    // Rows in shared memory are an odd number of 16-byte chunks apart.
    VLMK_HOST_DEVICE constexpr int row_bytes() const { return (head_dim / 8 | 1) * 16; }
    // Two stages of keys and values; queries are apart, or pass through the second stage before it is needed.
    VLMK_HOST_DEVICE constexpr int query_offset() const { return (query_in_shared ? 4 : 2) * keys * row_bytes(); }
    VLMK_HOST_DEVICE constexpr int shared_bytes() const {
        const int with_query = query_offset() + rows() * row_bytes(), stages = 4 * keys * row_bytes();
        return with_query > stages ? with_query : stages;
    }
};

// 32 rows a warp halve what shared memory has to deliver for a product: ldmatrix would else take as long as the tensor
// cores. 64 keys amortise the work per block of keys; 48 where output and query leave no registers for more.
constexpr ForwardTile kForwardTiles[] = {
    {64, 2, 64, false, false},  // 8 to 56
    {64, 2, 64, false, true},   //
    {72, 2, 64, false, true},   //
    {80, 2, 64, false, true},   //
    {88, 2, 64, false, true},   //
    {96, 2, 48, false, true},   //
    {104, 2, 48, false, true},  //
    {112, 2, 48, true, true},   // 75 KB: two blocks an SM of 164 KB
    {128, 2, 48, true, true},   // 85 KB, below the 99 KB of sm_86, 89 and 120
    {256, 1, 32, true, false},  // 120 and 136 to 256: the output alone takes 128 registers; 99 KB
};
constexpr int kForwardTileCount = sizeof kForwardTiles / sizeof kForwardTiles[0];

// Few queries leave most of a GPU idle: keys are then cut into parts, until there are two blocks for each of 132
// multiprocessors (those of an H100; a smaller one has a second wave). A part has at least kMinSplitTiles blocks of
// keys, and keys are this many times the queries, or reading and writing the parts' outputs would cost more than it
// brings.
constexpr int kSplitBlocks = 264;
constexpr int kMinSplitTiles = 4;
constexpr int kMinKeysPerQuery = 4;
constexpr int kMaxSplits = 32;  // one for each lane of the warp that combines them

// A warp combines the parts of a row.
constexpr int kCombineThreads = 128;

}  // namespace vlmk
