// How the backward kernels divide their work: every choice with its reason. Host and device.
//
// dK and dV need sums over queries, dQ sums over keys. A block holds rows of one side and walks through those of the
// other, so that each sum has one owner and one order: no atomics, no second copy of a gradient. Seven products of
// Sq x Sk x D instead of the five that are needed where a block keeps what it computed for both sides: S and dP are
// computed twice.
#pragma once

namespace vlmk {

enum class Held { keys, queries };

// A block of `warps` holds 16 * row_blocks rows a warp of both tensors of its side, and streams `streamed` rows of both
// of the other. Scores are made `chunk` columns at a time.
struct BackwardTile {
    int head_dim, row_blocks, warps, streamed, chunk;
};

// A thread keeps head_dim * row_blocks / 2 sums for each gradient, in at most 255 registers, next to chunk * row_blocks
// / 2 scores and slopes. 32 rows a warp halve what shared memory has to deliver for a product: ldmatrix would else take
// as long as the tensor cores.
constexpr BackwardTile kKeyTiles[] = {
    {32, 2, 4, 64, 32},
    {64, 2, 4, 64, 16},
    {72, 2, 4, 64, 16},
    {80, 2, 4, 32, 16},  // tiles of 32 queries keep two blocks on an SM of 164 KB
    {88, 2, 4, 32, 16},
    // dK and dV of 32 keys no longer fit.
    {96, 1, 4, 64, 32},
    {104, 1, 4, 32, 32},
    {112, 1, 4, 32, 32},
    {128, 1, 4, 32, 32},
    // dK and dV by a kernel each. 48 rows, so that 99 KB of shared memory are enough.
    {256, 1, 3, 16, 16},
};
// What masks need comes on top.
constexpr BackwardTile kMaskedKeyTiles[] = {
    {32, 2, 4, 64, 16}, {72, 1, 4, 64, 32},  {80, 1, 4, 64, 32},
    {88, 1, 4, 64, 32}, {112, 1, 4, 32, 16}, {128, 1, 4, 32, 16},
};
// A single gradient: 32 queries a warp up to 96. From 80 on tiles of 32 keys keep two blocks on an SM of 164 KB.
constexpr BackwardTile kQueryTiles[] = {
    {32, 2, 4, 64, 32}, {64, 2, 4, 64, 32},  {72, 2, 4, 64, 32},  {80, 2, 4, 32, 32},  {88, 2, 4, 32, 32},
    {96, 2, 4, 32, 16}, {104, 1, 4, 32, 32}, {112, 1, 4, 32, 32}, {128, 1, 4, 32, 32}, {256, 1, 3, 16, 16},
};
// fp32: rows are twice as long, and their halves for the tensor cores take registers. Few kernels, for all head_dims up
// to theirs.
constexpr BackwardTile kWideTiles[] = {
    {64, 1, 4, 32, 16},
    {128, 1, 3, 16, 16},
    {256, 1, 1, 16, 16},
};
constexpr int kLargestHeadDim = 256;
// The largest head_dim whose dK and dV fit into the registers together.
constexpr int both_gradients_up_to(int element_bytes) { return element_bytes == 4 ? 64 : 128; }
constexpr int kPlainUpTo = 128;  // beyond, kernels without masks would save too little of what they cost to build

// The tile of the first head_dim that is large enough.
constexpr BackwardTile backward_tile(Held held, int element_bytes, int head_dim, bool masked) {
    const BackwardTile* tile = element_bytes == 4 ? kWideTiles : held == Held::keys ? kKeyTiles : kQueryTiles;
    while (tile->head_dim < head_dim) ++tile;
    if (held == Held::keys && masked && element_bytes == 2)
        for (const BackwardTile& other : kMaskedKeyTiles)
            if (other.head_dim == tile->head_dim) return other;
    return *tile;
}

// At least a thread for every 16 bytes of a row, which more than the warps that compute help to load.
constexpr int backward_threads(Held held, int element_bytes, int head_dim, bool masked) {
    const BackwardTile tile = backward_tile(held, element_bytes, head_dim, masked);
    const int row_chunks = tile.head_dim * element_bytes / 16;
    return tile.warps * 32 > row_chunks ? tile.warps * 32 : row_chunks;
}

constexpr int held_rows(const BackwardTile& tile) { return 16 * tile.row_blocks * tile.warps; }

// Rows are an odd number of 16-byte chunks apart.
constexpr int row_bytes(int head_dim, int element_bytes) { return (head_dim * element_bytes / 16 | 1) * 16; }

// Shared memory for the statistics of a query.
constexpr int kStatisticsBytes = 16;

// What a block holds of one or both tensors of its side, and twice what streams by with the statistics of queries:
// one part is filled while the other is used.
constexpr int backward_shared_bytes(const BackwardTile& tile, int element_bytes, Held held, bool both_tensors) {
    const int row = row_bytes(tile.head_dim, element_bytes);
    const int streamed_bytes = 2 * row + (held == Held::keys ? kStatisticsBytes : 0);
    return (both_tensors ? 2 : 1) * held_rows(tile) * row + 2 * tile.streamed * streamed_bytes;
}

// One block for all keys of a head, where it can and every query sees every key: S and dP are computed once, for all
// three gradients, and dQ is finished in the block. A warp has 32 keys, in registers as well as in shared memory.
constexpr int kResidentHeadDim = 64, kResidentQueries = 64;
constexpr int kResidentKeys[] = {
    128,  // 92 KB: any GPU, and two blocks an SM from 228 KB
    256,  // 146 KB: not on sm_86, 89 and 120
};
// Keys, values and dS; twice a tile of queries and output gradients.
constexpr int resident_shared_bytes(int head_dim, int keys) {
    const int row = row_bytes(head_dim, 2), slope_row = row_bytes(kResidentQueries, 2);
    return keys * (2 * row + slope_row) + 2 * kResidentQueries * (2 * row + kStatisticsBytes);
}

// The kernel that runs first reads two rows: 8 lanes of 16 bytes are a line of 128 bytes.
constexpr int kStatisticsThreads = 128, kStatisticsLanes = 8;

}  // namespace vlmk
