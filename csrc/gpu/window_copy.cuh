// Windows of a row-major matrix copied into shared tiles by all threads of a block, whatever the alignment of its rows.
// Where a window reaches past the matrix the tile becomes zero.
#pragma once
#include "gpu/copy_async.cuh"
#include "gpu/shared_access.cuh"
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

struct Matrix {
    const char* data;
    int rows, row_bytes, stride;  // stride in bytes
    int access;                   // bytes that the start of every row is a multiple of: 16, 4 or 2
};

template <class Tile, int kThreads>
class WindowCopy {
  public:
    // The window starts at (row, byte), byte a multiple of 16 and within the rows.
    VLMK_DEVICE static void start(const Tile& tile, const Matrix& from, int row, int byte) {
        if (from.access == kChunkBytes)
            copy<kChunkBytes>(tile, from, row, byte);
        else if (from.access == 4)
            copy<4>(tile, from, row, byte);
        else
            copy<2>(tile, from, row, byte);
    }

  private:
    // Neighbouring threads on neighbouring units of a row.
    template <int kBytes>
    VLMK_DEVICE static void copy(const Tile& tile, const Matrix& from, int row, int byte) {
        constexpr int kUnits = Tile::kRowBytes / kBytes;
        static_assert(kThreads % kUnits == 0 || kUnits % kThreads == 0, "threads keep their columns");
        constexpr int kRowsAtOnce = kThreads > kUnits ? kThreads / kUnits : 1;
        static_assert(Tile::kRows % kRowsAtOnce == 0, "all rows take the same number of steps");
#pragma unroll(kBytes == kChunkBytes ? 64 : 1)
        for (int first = 0; first < Tile::kRows; first += kRowsAtOnce)
#pragma unroll
            for (int unit = 0; unit < kUnits; unit += kThreads) {
                const int to_row = first + static_cast<int>(threadIdx.x) / kUnits;
                const int column = (unit + static_cast<int>(threadIdx.x) % kUnits) * kBytes;
                copy_unit<kBytes>(tile.address(to_row, 0) + column, from, row + to_row, byte + column);
            }
    }

    template <int kBytes>
    VLMK_DEVICE static void copy_unit(uint32_t to, const Matrix& from, int row, int byte) {
        const int left = row < from.rows ? max(min(from.row_bytes - byte, kBytes), 0) : 0;
        const char* source = from.data + int64_t{min(row, from.rows - 1)} * from.stride + (left > 0 ? byte : 0);
        if constexpr (kBytes == 2)
            store_shared_half(to, left > 0 ? *reinterpret_cast<const uint16_t*>(source) : uint16_t{0});
        else
            copy_async_or_zero<kBytes>(to, source, left);
    }
};

}  // namespace vlmk::gpu
