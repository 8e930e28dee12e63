// A row tile of 16 rows between global memory and registers, through a tile in shared memory that has a part of their
// columns at a time: 64 bytes, or whole rows where these are an odd number of chunks of 16 bytes. Sectors of global
// memory, which are 32 bytes, are then read and written whole.
#pragma once
#include <type_traits>

#include "gpu/shared_access.cuh"
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

template <class T, int kColumns>
class RowParts {
    static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T)), kChunks = kColumns / kChunk;
    static constexpr bool kWhole = kChunks % 2 == 1;
    static constexpr int kInPart = kWhole ? kChunks : 4;                                         // chunks of a row
    static constexpr int kAtOnce = kWarpLanes / kInPart, kSteps = (16 + kAtOnce - 1) / kAtOnce;  // whole rows

  public:
    using Tile =
        SharedTile<std::remove_const_t<T>, 16, kInPart * kChunk, std::conditional_t<kWhole, OddPitch, Swizzle>>;
    static constexpr int kParts = (kChunks + kInPart - 1) / kInPart;
    using Chunks = uint4[kParts][kSteps];  // a lane's

    // locate(row) is where a row starts, or null: those are left out.
    template <class Locate>
    VLMK_DEVICE explicit RowParts(const Locate& locate) {
#pragma unroll
        for (int i = 0; i < kSteps; ++i) rows_[i] = locate(min(i * kAtOnce + lane_row(), 15));
    }

    // Lanes without a chunk load one that is there, too: what no branch leaves out costs no registers.
    VLMK_DEVICE void load(Chunks& chunks) const {
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
            const int chunk = min(part * kInPart + lane_chunk(), kChunks - 1);
#pragma unroll
            for (int i = 0; i < kSteps; ++i)
                chunks[part][i] = *reinterpret_cast<const uint4*>(rows_[i] + chunk * kChunk);
        }
    }

    VLMK_DEVICE void store(int part, const Tile& from) const {
        for_each(part, [&](int i, int row, int column) {
            if (rows_[i] != nullptr)
                *reinterpret_cast<uint4*>(rows_[i] + part * Tile::kColumns + column) =
                    load_shared<uint4>(from.address(row, column));
        });
    }

    VLMK_DEVICE static void put(int part, const Tile& to, const Chunks& chunks) {
        for_each(part, [&](int i, int row, int column) { store_shared(to.address(row, column), chunks[part][i]); });
    }

  private:
    // Neighbouring lanes have neighbouring chunks.
    VLMK_DEVICE static int lane_row() { return lane_index() / kInPart; }
    VLMK_DEVICE static int lane_chunk() { return lane_index() % kInPart; }
    template <class Act>
    VLMK_DEVICE static void for_each(int part, const Act& act) {
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
            const int row = i * kAtOnce + lane_row();
            const bool there = row < 16 && lane_row() < kAtOnce && part * kInPart + lane_chunk() < kChunks;
            if (there) act(i, row, lane_chunk() * kChunk);
        }
    }

    T* rows_[kSteps];
};

}  // namespace vlmk::gpu
