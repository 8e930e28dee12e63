// Which chunk of 16 bytes a thread copies where a block copies several rows of a tile at once. Sectors of global memory
// are read whole, and eight neighbouring lanes write to eight different groups of four banks.
#pragma once
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

struct CopyPlace {
    int row, chunk;
};

// Neighbours have neighbouring chunks; but where rows are padded to an odd pitch and are no multiple of eight chunks
// (head_dim 80, 96 and 112), lanes that go on to the next row would meet banks twice. Of eight rows, the first eight
// chunks of each go first, then what is left of them, in an order of rows in which one goes on with the banks behind
// the last one's. The first 8 n rows belong to the first threads; threads without a chunk have rows from `rows` on.
template <class Tile>
VLMK_DEVICE CopyPlace copy_place(int rows) {
    constexpr int kChunks = Tile::kColumns / Tile::kChunk, kPitch = Tile::offset(1, 0) / kChunkBytes;
    const int thread = static_cast<int>(threadIdx.x);
    if constexpr (kChunks % 8 == 0 || kPitch == kChunks) {
        return {thread / kChunks, thread % kChunks};
    } else {
        constexpr int kRest = kChunks % 8, kEights = kChunks - kRest;
        const int first = thread / (8 * kChunks) * 8, count = min(8, rows - first), number = thread - first * kChunks;
        if (number < count * kEights) return {first + number / kEights, number % kEights};
        // An odd number is its own inverse modulo 8: so many rows on, a row starts kRest groups of banks further.
        constexpr int kApart = kRest * kPitch % 8, kCycle = kRest % 4 == 2 ? 4 : 2;
        const int rest = number - count * kEights, turn = rest / kRest;
        return {first + (count == 8 ? (turn * kApart + turn / kCycle) % 8 : turn), kEights + rest % kRest};
    }
}

}  // namespace vlmk::gpu
