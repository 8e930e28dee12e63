// Which chunk of 16 bytes a thread copies where a block copies several rows of a tile at once. Sectors of global memory
// are read whole, and eight neighbouring lanes write to eight different groups of four banks.
#pragma once
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

// Rows that so many threads copy at once. Rows of nine chunks (head_dim 72) stay in a warp: where one goes on in the
// next warp, both read the sector between, one more in sixteen. With 11 and 13 chunks, 10 and 6 lanes of a warp would
// then have nothing to do.
template <class Tile>
struct CopyRows {
    static constexpr int kChunks = Tile::kColumns / Tile::kChunk, kPitch = Tile::offset(1, 0) / kChunkBytes;
    static constexpr bool kByWarp = kChunks == 9;
    static constexpr int kLanes = kByWarp ? kWarpLanes / kChunks * kChunks : kWarpLanes;  // of a warp, with a chunk
    VLMK_HOST_DEVICE static constexpr int at_once(int threads) {
        return kByWarp ? threads / kWarpLanes * (kWarpLanes / kChunks) : threads / kChunks;
    }
};

struct CopyPlace {
    int row, chunk;
};

// Neighbours have neighbouring chunks; but where rows are padded to an odd pitch and are no multiple of eight chunks
// (head_dim 80, 96 and 112), lanes that go on to the next row would meet banks twice. Of eight rows, the first eight
// chunks of each go first, then what is left of them, in an order of rows in which one goes on with the banks behind
// the last one's. Threads without a chunk have rows from `rows` on.
template <class Tile>
VLMK_DEVICE CopyPlace copy_place(int rows) {
    constexpr int kChunks = CopyRows<Tile>::kChunks, kPitch = CopyRows<Tile>::kPitch;
    const int thread = static_cast<int>(threadIdx.x);
    if constexpr (CopyRows<Tile>::kByWarp) {
        const int lane = lane_index(), row = thread / kWarpLanes * (kWarpLanes / kChunks) + lane / kChunks;
        return {lane < CopyRows<Tile>::kLanes ? row : rows, lane % kChunks};
    } else if constexpr (kChunks % 8 == 0 || kPitch == kChunks) {
        return {thread / kChunks, thread % kChunks};
    } else {
        constexpr int kRest = kChunks % 8, kEights = kChunks - kRest;
        const int first = thread / (8 * kChunks) * 8, count = min(8, rows - first), number = thread - first * kChunks;
        if constexpr (kEights > 0)
            if (number < count * kEights) return {first + number / kEights, number % kEights};
        // An odd number is its own inverse modulo 8: so many rows on, a row starts kRest groups of banks further.
        constexpr int kApart = kRest * kPitch % 8, kCycle = kRest % 4 == 2 ? 4 : 2;
        const int rest = number - count * kEights, turn = rest / kRest;
        return {first + (count == 8 ? (turn * kApart + turn / kCycle) % 8 : turn), kEights + rest % kRest};
    }
}

// Whether the thread's row is one of the first `count` of those copied at once, both constants. The first 8 n rows, and
// all, belong to the first threads.
template <class Tile>
VLMK_DEVICE bool copies_among_first(int count, int rows) {
    if (!CopyRows<Tile>::kByWarp && (count % 8 == 0 || count == rows))
        return static_cast<int>(threadIdx.x) < count * CopyRows<Tile>::kChunks;
    return copy_place<Tile>(rows).row < count;
}

}  // namespace vlmk::gpu
