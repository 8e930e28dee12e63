// The rows that stream by a block of a backward kernel, tile after tile: of two tensors, and for queries what their
// softmax left behind. Copies need no branch, and a thread's addresses are pointers that move on.
#pragma once
#include "attention/backward_launch.h"
#include "attention/backward_tiles.h"
#include "attention/copy_place.cuh"
#include "gpu/copy_async.cuh"
#include "gpu/fragments.cuh"
#include "gpu/shared_access.cuh"
#include "gpu/shared_tile.cuh"

namespace vlmk::gpu {

// Statistics of a tile's queries as accumulators take them: of each two neighbours -lse and, 16 bytes on, -delta twice.
// Three parts, then, that each row's two numbers are copied to.
template <int kRows, int kThreads>
class StatisticsCopy {
  public:
    static constexpr int kBytes = kStatisticsBytes * kRows;

    // `from` is where the first row's statistics are.
    VLMK_DEVICE explicit StatisticsCopy(const RowStatistics* from)
        : from_(reinterpret_cast<const char*>(from) + row(0) * kFromBytes + (part(0) == 0 ? 0 : 4)) {}

    VLMK_DEVICE void start(uint32_t tile, const RowStatistics* any, int count) const {
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass) {
            if (static_cast<int>(threadIdx.x) + pass * kThreads >= 3 * kRows) break;
            const int r = row(pass), p = part(pass);
            const uint32_t to = tile + r / 2 * (2 * kStatisticsBytes) + r % 2 * 4 + (p == 0 ? 0 : 8 + 8 * p);
            const bool there = r < count;
            const char* from = from_ + (r - row(0)) * kFromBytes + ((p == 0 ? 0 : 4) - (part(0) == 0 ? 0 : 4));
            copy_async_or_zero<4>(to, there ? from : reinterpret_cast<const char*>(any), there ? 4 : 0);
        }
    }
    VLMK_DEVICE void advance(int rows) { from_ += rows * kFromBytes; }

  private:
    static constexpr int kFromBytes = sizeof(RowStatistics), kPasses = (3 * kRows + kThreads - 1) / kThreads;
    VLMK_DEVICE static int number(int pass) { return static_cast<int>(threadIdx.x) + pass * kThreads; }
    VLMK_DEVICE static int row(int pass) { return number(pass) % kRows; }
    VLMK_DEVICE static int part(int pass) { return number(pass) / kRows; }

    const char* from_;
};

// The statistics of the queries that a lane's columns of an accumulator belong to.
class StatisticsView {
  public:
    VLMK_DEVICE explicit StatisticsView(uint32_t tile) : at_(tile + Accumulator<>::column(0) * kStatisticsBytes) {}

    // Of the columns from `row` on, a constant.
    VLMK_DEVICE float2 minus_lse(int row) const { return load_shared<float2>(at_ + row * kStatisticsBytes); }
    VLMK_DEVICE Accumulator<> minus_delta(int row) const {
        const float4 twice = load_shared<float4>(at_ + row * kStatisticsBytes + 16);
        return {{twice.x, twice.y, twice.z, twice.w}};
    }
    VLMK_DEVICE void advance(int rows) { at_ += rows * kStatisticsBytes; }

  private:
    uint32_t at_;
};

// The same rows of two tensors, tile after tile.
template <class Tile_, int kThreads>
class RowStream {
  public:
    using Tile = Tile_;
    using T = typename Tile::Element;
    static constexpr int kRows = Tile::kRows, kBytes = 2 * Tile::kBytes;

    // From where the first rows are.
    VLMK_DEVICE RowStream(const T* one, const HeadTensor& one_of, const T* two, const HeadTensor& two_of, int head_dim)
        : stride_one_(bytes(one_of)), stride_two_(bytes(two_of)) {
        const CopyPlace place = copy_place<Tile>(kRowsAtOnce);
        const int column = place.chunk * Tile::kChunk;
        row_ = place.row;
        inside_ = column < head_dim;
        to_ = Tile::offset(row_, column);
        from_one_ = reinterpret_cast<const char*>(one + (inside_ ? column : 0));
        from_two_ = reinterpret_cast<const char*>(two + (inside_ ? column : 0));
    }

    // The first `count` rows of the tile, at least one; the others become zeros.
    VLMK_DEVICE void start(uint32_t stage, int count) const {
        if (kThreads % CopyRows<Tile>::kChunks != 0 && row_ >= kRowsAtOnce) return;
#pragma unroll
        for (int pass = 0; pass < kRows; pass += kRowsAtOnce) {
            if (kRows % kRowsAtOnce != 0 && row_ >= kRows - pass) break;
            const int row = row_ + pass, source = min(row, count - 1);
            const int valid = inside_ && row < count ? kChunkBytes : 0;
            const uint32_t to = stage + to_ + Tile::offset(pass, 0);
            copy_async_or_zero(to, from_one_ + int64_t{source} * stride_one_, valid);
            copy_async_or_zero(to + Tile::kBytes, from_two_ + int64_t{source} * stride_two_, valid);
        }
    }
    VLMK_DEVICE void advance(int rows) {
        from_one_ += int64_t{rows} * stride_one_;
        from_two_ += int64_t{rows} * stride_two_;
    }

    VLMK_DEVICE static int bytes(const HeadTensor& t) {
        return static_cast<int>(t.row_stride) * static_cast<int>(sizeof(T));
    }

  private:
    static constexpr int kRowsAtOnce = CopyRows<Tile>::at_once(kThreads);

    int row_, to_;
    bool inside_;
    int stride_one_, stride_two_;
    const char *from_one_, *from_two_;
};

}  // namespace vlmk::gpu
