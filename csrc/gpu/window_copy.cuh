// Windows of a row-major matrix copied into shared tiles by all threads of a block: neighbouring threads on
// neighbouring units of a row, as many rows at once as there are threads for.
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

// Which of a tile's elements a thread copies, kBytes at a time.
template <class Tile, int kThreads, int kBytes>
struct CopyShare {
    static constexpr int kUnits = Tile::kRowBytes / kBytes, kRowsAtOnce = kThreads > kUnits ? kThreads / kUnits : 1;
    static_assert(kThreads % kUnits == 0 || kUnits % kThreads == 0, "threads keep their columns");
    static_assert(Tile::kRows % kRowsAtOnce == 0, "all threads copy the same number of rows");

    VLMK_DEVICE static int row() { return static_cast<int>(threadIdx.x) / kUnits; }
    VLMK_DEVICE static int byte() { return static_cast<int>(threadIdx.x) % kUnits * kBytes; }
};

// Whatever the alignment of rows. Where a window reaches past the matrix the tile becomes zero.
template <class Tile, int kThreads>
class WindowCopy {
  public:
    // The window starts at (row, byte), byte a multiple of 16.
    VLMK_DEVICE static void start(const Tile& tile, const Matrix& from, int row, int byte) {
        if (from.access == kChunkBytes)
            copy<kChunkBytes>(tile, from, row, byte);
        else if (from.access == 4)
            copy<4>(tile, from, row, byte);
        else
            copy<2>(tile, from, row, byte);
    }

  private:
    template <int kBytes>
    VLMK_DEVICE static void copy(const Tile& tile, const Matrix& from, int row, int byte) {
        using Share = CopyShare<Tile, kThreads, kBytes>;
#pragma unroll 1
        for (int r = Share::row(); r < Tile::kRows; r += Share::kRowsAtOnce)
#pragma unroll 1
            for (int at = Share::byte(); at < Tile::kRowBytes; at += kThreads * kBytes)
                copy_unit<kBytes>(tile.address(r, 0) + at, from, row + r, byte + at);
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

// Windows inside a matrix whose rows are aligned to 16 bytes, one after the other: an address costs one instruction.
template <class Tile, int kThreads>
class WindowStream {
    using Share = CopyShare<Tile, kThreads, kChunkBytes>;

  public:
    VLMK_DEVICE static bool takes(const Matrix& from) { return from.access == kChunkBytes; }

    VLMK_DEVICE WindowStream(const Matrix& from, int row, int byte)
        : from_(from.data + int64_t{row + Share::row()} * from.stride + byte + Share::byte()),
          stride_(from.stride),
          to_(Tile::offset(Share::row(), 0) + Share::byte()) {}

    VLMK_DEVICE void start(uint32_t tile) const {
#pragma unroll
        for (int r = 0; r < Tile::kRows; r += Share::kRowsAtOnce)
            copy_async(tile + to_ + Tile::offset(r, 0), from_ + int64_t{r} * stride_);
    }
    VLMK_DEVICE void advance(int bytes) { from_ += bytes; }
    VLMK_DEVICE void advance_rows(int rows) { from_ += int64_t{rows} * stride_; }

  private:
    const char* from_;
    int stride_, to_;
};

// Two stages of shared memory from `base` on, one filled while the other is used: `count` times start(stage), one step
// ahead of use(stage).
template <int kStageBytes, class Start, class Use>
VLMK_DEVICE void in_two_stages(uint32_t base, int count, const Start& start, const Use& use) {
    start(base);
    uint32_t stage = base;
#pragma unroll 1
    for (int left = count - 1; left >= 0; --left) {
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        const uint32_t next = 2 * base + kStageBytes - stage;
        if (left > 0) start(next);
        use(stage);
        stage = next;
    }
}

}  // namespace vlmk::gpu
