// Copies of rows from global memory into a shared tile by all threads of a block, 16 bytes at a time, as many whole
// rows at once as there are threads for.
#pragma once
#include "attention/copy_place.cuh"
#include "gpu/copy_async.cuh"

namespace vlmk::gpu {

template <class Tile, int kThreads>
class RowCopy {
    static constexpr int kRowsAtOnce = CopyRows<Tile>::at_once(kThreads);
    static constexpr int kSteps = (Tile::kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  public:
    using T = typename Tile::Element;

    VLMK_DEVICE explicit RowCopy(const Tile& tile) : to_(tile.address(place().row, column(place()))) {}

    // To another tile.
    VLMK_DEVICE void move(int bytes) { to_ += bytes; }

    // Where the thread's first chunk is, given where the first row is. Rows have `columns` elements, a multiple of a
    // chunk; the tile's others become zeros.
    VLMK_DEVICE static const char* start(const T* rows, int64_t stride, int columns) {
        const int column = RowCopy::column(place());
        return reinterpret_cast<const char*>(rows + place().row * stride + (column < columns ? column : 0));
    }

    // All rows of the tile, to `shift` bytes behind it. `from` is from start(), the stride in bytes.
    template <bool kAllColumns>
    VLMK_DEVICE void full(int shift, const char* from, int stride, int columns) const {
#pragma unroll
        for (int i = 0; i < kSteps; ++i)
            if (copies_among_first<Tile>(min(kRowsAtOnce, Tile::kRows - i * kRowsAtOnce), kRowsAtOnce)) {
                const uint32_t to = to_ + shift + Tile::offset(i * kRowsAtOnce, 0);
                const char* source = from + int64_t{i * kRowsAtOnce} * stride;
                if constexpr (kAllColumns)
                    copy_async(to, source);
                else
                    copy_async_or_zero(to, source, column(place()) < columns ? kChunkBytes : 0);
            }
    }

    // The first `count` rows, at least one, which locate(row) finds; those behind them become zeros up to row `end`.
    // Also for blocks of fewer threads, of which there must be one for each chunk of a row.
    template <class Locate>
    VLMK_DEVICE static void part(const Tile& tile, int count, int end, int columns, const Locate& locate) {
        const int rows_at_once = CopyRows<Tile>::at_once(static_cast<int>(blockDim.x));
        const CopyPlace place = copy_place<Tile>(rows_at_once);
        if (place.row >= rows_at_once) return;
        const bool inside = column(place) < columns;
#pragma unroll 1
        for (int r = place.row; r < end; r += rows_at_once) {
            const T* source = locate(min(r, count - 1)) + (inside ? column(place) : 0);
            copy_async_or_zero(tile.address(r, column(place)), source, inside && r < count ? kChunkBytes : 0);
        }
    }

  private:
    VLMK_DEVICE static CopyPlace place() { return copy_place<Tile>(kRowsAtOnce); }
    VLMK_DEVICE static int column(const CopyPlace& place) { return place.chunk * Tile::kChunk; }

    uint32_t to_;
};

}  // namespace vlmk::gpu
