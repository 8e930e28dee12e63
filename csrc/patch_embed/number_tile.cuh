// Rows of contiguous numbers, of the weight and of gradients, into a shared tile.
#pragma once
#include "gpu/copy_async.cuh"
#include "gpu/packed.cuh"
#include "gpu/shared_tile.cuh"
#include "patch_embed/patch_rows.cuh"

namespace vlmk::gpu {

// fp32 right operands of products take the rows 2t and 2t + 1 of a tile as the depths t and t + 4 (tile_product.cuh).
template <class T>
VLMK_DEVICE int row_of_depth(int depth) {
    if constexpr (sizeof(T) == 2) return depth;
    const int within = depth % 8;
    return depth - within + (within < 4 ? 2 * within : 2 * within - 7);
}

template <int kBytes>
VLMK_DEVICE void copy_numbers(uint32_t to, const char* from) {
    if constexpr (kBytes >= 4)
        copy_async<kBytes>(to, from);
    else
        Packed<bf16, 1>::load(from).store_to_shared(to);
}

// The columns of the weight that a tile of pixels meets: rows from `first` on, those past the last zero. Where a tile
// has several channels, it meets a piece of the weight for each. kAsDepth: rows are the depth of a product.
template <bool kAsDepth, class Tile>
class WeightTile {
    using T = typename Tile::Element;

  public:
    VLMK_DEVICE WeightTile(const PatchLaunch& launch, const Tile& tile)
        : launch_(launch), tile_(tile), weight_(static_cast<const char*>(launch.problem.weight)) {}

    VLMK_DEVICE void load(const TileSpan& span, int first) const {
        switch (launch_.weight_bytes) {
            case 16:
                return load_as<16>(span, first);
            case 8:
                return load_as<8>(span, first);
            case 4:
                return load_as<4>(span, first);
            default:
                if constexpr (sizeof(T) == 2) load_as<2>(span, first);
        }
    }

  private:
    // Neighbouring threads on neighbouring accesses of a row, as many whole rows at once as there are threads for. The
    // lanes that shared memory serves together stay in a row: where they went on in the next, they would meet banks
    // twice.
    template <int kBytes>
    VLMK_DEVICE void load_as(const TileSpan& span, int first) const {
        constexpr int kNumbers = kBytes / static_cast<int>(sizeof(T));
        const PatchTiling& t = launch_.tiling;
        constexpr int kTogether = kBytes <= 4 ? kWarpLanes : 128 / kBytes;
        const int accesses = t.columns(span) / kNumbers;
        const int lanes = (accesses + kTogether - 1) / kTogether * kTogether;
        const int step = static_cast<int>(blockDim.x) / lanes, start = static_cast<int>(threadIdx.x) / lanes;
        const int access = static_cast<int>(threadIdx.x) - start * lanes;
        if (start >= step || access >= accesses) return;
        const int channel = access * kNumbers / span.positions(), apart = t.positions - span.positions();
        const int number = t.first_position(span) + access * kNumbers + channel * apart;
        const int pitch = t.positions * t.channels * static_cast<int>(sizeof(T)), stride = step * pitch;
        const int rows = min(Tile::kRows, static_cast<int>(launch_.problem.embed) - first);
        const char* from = weight_ + int64_t{first + start} * pitch + number * static_cast<int>(sizeof(T));
        // Where rows of the tile are in another order, their addresses are made one by one.
        constexpr bool kLinear = !kAsDepth || sizeof(T) == 2;
        uint32_t linear = tile_.address(start, access * kNumbers);
        const auto to = [&](int row) {
            return kLinear ? linear : tile_.address(row_of_depth<T>(row), access * kNumbers);
        };
        int row = start;
        const auto copy = [&] {
            copy_numbers<kBytes>(to(row), from);
            row += step, from += stride, linear += Tile::offset(step, 0);
        };
#pragma unroll 1
        while (row + 3 * step < rows) {
#pragma unroll
            for (int i = 0; i < 4; ++i) copy();
        }
#pragma unroll 1
        while (row < rows) copy();
#pragma unroll 1
        for (; row < Tile::kRows; row += step, linear += Tile::offset(step, 0))
            Packed<T, kNumbers>{}.store_to_shared(to(row));
    }

    const PatchLaunch& launch_;
    const Tile tile_;
    const char* const weight_;
};

// Gradients of patch tokens, rounded to T: `count` rows of the tile, and its columns from `first` on; what does not
// exist is zero.
template <class Tile>
class GradientTile {
    using T = typename Tile::Element;

  public:
    VLMK_DEVICE GradientTile(const PatchLaunch& launch, const Tile& tile) : launch_(launch), tile_(tile) {}

    // `tokens` of the rows.
    VLMK_DEVICE void load(int rows, int count, int first, const int* tokens) const {
        if (launch_.wide_grads) return copy(rows, count, first, tokens);
        switch (launch_.problem.out_dtype) {
            case DType::f32:
                return convert<float>(rows, count, first, tokens);
            case DType::bf16:
                return convert<bf16>(rows, count, first, tokens);
            default:
                return convert<f16>(rows, count, first, tokens);
        }
    }

  private:
    VLMK_DEVICE void copy(int rows, int count, int first, const int* tokens) const {
        constexpr int kChunks = Tile::kColumns / Tile::kChunk;
        const int embed = static_cast<int>(launch_.problem.embed);
        const T* grads = static_cast<const T*>(launch_.problem.grad_out);
        for (int i = static_cast<int>(threadIdx.x); i < rows * kChunks; i += static_cast<int>(blockDim.x)) {
            const int row = i / kChunks, column = i % kChunks * Tile::kChunk;
            const bool valid = row < count && first + column < embed;
            copy_async_or_zero(tile_.address(row, column),
                               grads + (valid ? int64_t{tokens[row]} * embed + first + column : 0),
                               valid ? kChunkBytes : 0);
        }
    }

    template <class From>
    VLMK_DEVICE void convert(int rows, int count, int first, const int* tokens) const {
        const int embed = static_cast<int>(launch_.problem.embed);
        const From* grads = static_cast<const From*>(launch_.problem.grad_out);
#pragma unroll 4
        for (int i = static_cast<int>(threadIdx.x); i < rows * Tile::kColumns; i += static_cast<int>(blockDim.x)) {
            const int row = i / Tile::kColumns, column = i % Tile::kColumns;
            const bool valid = row < count && first + column < embed;
            const float value = valid ? to_float(grads[int64_t{tokens[row]} * embed + first + column]) : 0.0f;
            store_numbers<T, 1>(tile_.address(row, column), {value});
        }
    }

    const PatchLaunch& launch_;
    const Tile tile_;
};

}  // namespace vlmk::gpu
