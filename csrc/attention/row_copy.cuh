// Copies of rows from global memory into a shared tile by all threads of a block, 16 bytes at a time: neighbouring
// threads on neighbouring chunks of a row, as many whole rows at once as there are threads for.
#pragma once
#include "gpu/copy_async.cuh"
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

template <class Tile, int kThreads>
class RowCopy {
  public:
    using T = typename Tile::Element;
    static constexpr int kChunks = Tile::kColumns / Tile::kChunk;
    static constexpr int kRowsAtOnce = kThreads / kChunks;
    static constexpr int kSteps = (Tile::kRows + kRowsAtOnce - 1) / kRowsAtOnce;

    // Rows have `columns` elements, a multiple of a chunk; the tile's others become zeros.
    VLMK_DEVICE explicit RowCopy(int columns)
        : row_(static_cast<int>(threadIdx.x) / kChunks),
          column_(static_cast<int>(threadIdx.x) % kChunks * Tile::kChunk),
          inside_(column_ < columns) {}

    // Where the thread's first chunk is, given where the first row is.
    VLMK_DEVICE const char* start(const T* rows, int64_t stride) const {
        return reinterpret_cast<const char*>(rows + row_ * stride + (inside_ ? column_ : 0));
    }

    // All rows of the tile. `from` is from start(), the stride in bytes.
    template <bool kAllColumns>
    VLMK_DEVICE void full(const Tile& tile, const char* from, int stride) const {
#pragma unroll
        for (int i = 0; i < kSteps; ++i)
            if (row_ < min(kRowsAtOnce, Tile::kRows - i * kRowsAtOnce)) {
                const uint32_t to = tile.address(row_ + i * kRowsAtOnce, column_);
                const char* source = from + int64_t{i * kRowsAtOnce} * stride;
                if constexpr (kAllColumns)
                    copy_async(to, source);
                else
                    copy_async_or_zero(to, source, inside_ ? kChunkBytes : 0);
            }
    }

    // The first `count` rows, at least one, which locate(row) finds; those behind them become zeros up to row `end`.
    template <class Locate>
    VLMK_DEVICE void part(const Tile& tile, int count, int end, const Locate& locate) const {
        if (row_ >= kRowsAtOnce) return;
#pragma unroll 1
        for (int row = row_; row < end; row += kRowsAtOnce) {
            const T* source = locate(min(row, count - 1)) + (inside_ ? column_ : 0);
            copy_async_or_zero(tile.address(row, column_), source, inside_ && row < count ? kChunkBytes : 0);
        }
    }

  private:
    int row_, column_;
    bool inside_;
};

}  // namespace vlmk::gpu
