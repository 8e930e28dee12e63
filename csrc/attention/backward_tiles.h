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

// A thread keeps head_dim * row_blocks / 2 sums for each gradient, in at most 255 registers, next to
// chunk * row_blocks scores and slopes.
constexpr BackwardTile kKeyTiles[] = {
    // 32 keys a warp: every fragment of a query serves two products.
    {32, 2, 4, 64, 32},
    {64, 2, 4, 64, 16},
    // dK and dV of 32 keys no longer fit.
    {72, 1, 4, 64, 32},
    {80, 1, 4, 64, 32},
    {88, 1, 4, 64, 32},
    {96, 1, 4, 64, 32},
    {104, 1, 4, 32, 32},
    {112, 1, 4, 32, 32},
    {128, 1, 4, 32, 16},
    // dK and dV by a kernel each. 48 rows, so that 99 KB of shared memory are enough.
    {256, 1, 3, 16, 16},
};
constexpr BackwardTile kQueryTiles[] = {
    {32, 2, 4, 64, 32}, {64, 2, 4, 64, 32},  {72, 2, 4, 64, 32},  {80, 2, 4, 64, 32},  {88, 2, 4, 64, 32},
    {96, 2, 4, 64, 16}, {104, 1, 4, 32, 32}, {112, 1, 4, 32, 32}, {128, 1, 4, 32, 32}, {256, 1, 3, 16, 16},
};
constexpr int kLargestHeadDim = 256, kBothGradientsUpTo = 128;

// The tile of the first head_dim that is large enough.
constexpr BackwardTile backward_tile(Held held, int head_dim) {
    const BackwardTile* tile = held == Held::keys ? kKeyTiles : kQueryTiles;
    while (tile->head_dim < head_dim) ++tile;
    return *tile;
}

constexpr int held_rows(const BackwardTile& tile) { return 16 * tile.row_blocks * tile.warps; }

// Rows are an odd number of 16-byte chunks apart.
constexpr int row_bytes(const BackwardTile& tile) { return (tile.head_dim / 8 | 1) * 16; }

// What a block holds of one or both tensors of its side, and twice what streams by with 8 bytes of statistics a row:
// one part is filled while the other is used.
constexpr int backward_shared_bytes(const BackwardTile& tile, bool both_tensors) {
    return (both_tensors ? 2 : 1) * held_rows(tile) * row_bytes(tile) + 2 * tile.streamed * (2 * row_bytes(tile) + 8);
}

// The kernel that runs first reads two rows: 8 lanes of 16 bytes are a line of 128 bytes.
constexpr int kStatisticsThreads = 128, kStatisticsLanes = 8;

}  // namespace vlmk
