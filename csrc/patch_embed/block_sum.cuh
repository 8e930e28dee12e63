// Sums of a block, 16-bit products in 128 columns and fp32 ones in 64, spread over its warps; and how they leave: as
// fp32 through the shared memory of the tiles, so that rows are written whole.
#pragma once
#include "gpu/tile_product.cuh"
#include "patch_embed/tiles.h"

namespace vlmk::gpu {

template <class T>
struct BlockShape {
    static constexpr int kColumns = patch_columns(sizeof(T));
    static constexpr int kWarpColumns = kColumns / kPatchWarpsAcross;
    static constexpr int kRowBlocks = kPatchWarpRows / 16, kColumnBlocks = kWarpColumns / 8;
    using Sum = TileSum<kRowBlocks, kColumnBlocks>;

    VLMK_DEVICE static int warp() { return static_cast<int>(threadIdx.x) / kWarpLanes; }
    VLMK_DEVICE static int warp_row() { return warp() / kPatchWarpsAcross * kPatchWarpRows; }
    VLMK_DEVICE static int warp_column() { return warp() % kPatchWarpsAcross * kWarpColumns; }
};

// Rows of fp32 in shared memory.
template <class T>
class StagedSums {
    using Shape = BlockShape<T>;

  public:
    static constexpr int kPitch = (Shape::kColumns + kPatchSumPad) * 4;
    static constexpr int kBytes = kPatchRows * kPitch;

    VLMK_DEVICE explicit StagedSums(uint32_t base) : base_(base) {}

    // By all warps; the tiles below are read no more.
    VLMK_DEVICE void store(const typename Shape::Sum& sum) const {
        __syncthreads();
#pragma unroll
        for (int m = 0; m < Shape::kRowBlocks; ++m)
#pragma unroll
            for (int n = 0; n < Shape::kColumnBlocks; ++n)
#pragma unroll
                for (int i = 0; i < 4; i += 2)
                    store_shared(address(Shape::warp_row() + 16 * m + Accumulator<>::row(i),
                                         Shape::warp_column() + 8 * n + Accumulator<>::column(i)),
                                 sum[m][n].v[i], sum[m][n].v[i + 1]);
        __syncthreads();
    }

    // kCount is 1, 4 or 8. Of eight lanes with 8 numbers each the last four start with the second half: the first
    // halves of all of them would be in four groups of banks.
    template <int kCount>
    VLMK_DEVICE void load(int row, int column, float (&values)[kCount]) const {
        if constexpr (kCount == 1) {
            values[0] = __uint_as_float(load_shared<uint32_t>(address(row, column)));
        } else if constexpr (kCount == 4) {
            take(load_shared<float4>(address(row, column)), values);
        } else {
            static_assert(kCount == 8, "two accesses");
            const bool exchange = column / 32 % 2 == 1;
            const float4 first = load_shared<float4>(address(row, column + (exchange ? 4 : 0)));
            const float4 second = load_shared<float4>(address(row, column + (exchange ? 0 : 4)));
            take(exchange ? second : first, values);
            take(exchange ? first : second, values + 4);
        }
    }

  private:
    VLMK_DEVICE static void take(const float4& four, float* values) {
        values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
    }
    VLMK_DEVICE uint32_t address(int row, int column) const { return base_ + row * kPitch + column * 4; }

    uint32_t base_;
};

}  // namespace vlmk::gpu
