// Pixels of a block's patches into a shared tile of patches by numbers: normalised in fp32, rounded to the products'
// type.
#pragma once
#include "gpu/packed.cuh"
#include "gpu/shared_tile.cuh"
#include "patch_embed/pixel_walk.cuh"

namespace vlmk::gpu {

// Columns of a tile from `used` to `rounded` become zeros, in rows [0, rows).
template <class Tile>
VLMK_DEVICE void clear_columns(const Tile& tile, int rows, int used, int rounded) {
    using T = typename Tile::Element;
    const int width = rounded - used;
    for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += static_cast<int>(blockDim.x))
        store_numbers<T, 1>(tile.address(i / width, used + i % width), {0.0f});
}

template <class Tile, class Pixel>
class PixelTile {
    using T = typename Tile::Element;

  public:
    VLMK_DEVICE PixelTile(const PatchEmbedProblem& p, const PatchTiling& t, const Tile& tile, const PatchNorm* norms)
        : t_(t),
          pixels_(static_cast<const char*>(p.source.data)),
          tile_(tile),
          norms_(norms),
          norm_step_(norms_differ(p) ? 1 : 0) {}

    // `rows` patches, a multiple of 32, of which those from `live` on are not read and arbitrary.
    VLMK_DEVICE void load(const TileSpan& span, int rows, int live, const PatchRow* infos) const {
        with_access<sizeof(Pixel)>(t_, [&](auto vector, auto channels) {
            load_as<decltype(vector)::value, decltype(channels)::value>(span, rows, live, infos);
        });
    }

  private:
    template <int kVector, int kChannels>
    VLMK_DEVICE void load_as(const TileSpan& span, int rows, int live, const PatchRow* infos) const {
        using Access = Packed<Pixel, kVector>;
        // Loads under way together.
        constexpr int kBatch = Access::kBytes <= 4 ? 8 : 4;
        const PixelWalk<kVector, sizeof(Pixel)> walk(t_, span, rows, infos);
        const int warps = static_cast<int>(blockDim.x) / kWarpLanes, turns = walk.turns();
#pragma unroll 1
        for (int turn = static_cast<int>(threadIdx.x) / kWarpLanes; turn < turns; turn += kBatch * warps) {
            Access accesses[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                if (turn + i * warps >= turns) break;
                const PixelPlace at = walk.place(turn + i * warps);
                if (at.row < live) accesses[i] = Access::load(pixels_ + at.bytes);
            }
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                if (turn + i * warps >= turns) break;
                const PixelPlace at = walk.place(turn + i * warps);
                if constexpr (kChannels == 1)
                    store_run(span, walk.position(at.run, at.number), at, accesses[i]);
                else
                    store_pixels<kVector, kChannels>(span, walk, at, accesses[i]);
            }
        }
    }

    template <class Access>
    VLMK_DEVICE static float normalise(const Access& access, int i, const PatchNorm& norm) {
        return fmaf(access[i], norm.scale, norm.shift);
    }

    // Numbers of one channel stay together.
    template <int kVector>
    VLMK_DEVICE void store_run(const TileSpan&, int column, const PixelPlace& at,
                               const Packed<Pixel, kVector>& access) const {
        const PatchNorm norm = norms_[at.channel * norm_step_];
        float values[kVector];
#pragma unroll
        for (int i = 0; i < kVector; ++i) values[i] = normalise(access, i, norm);
        store_numbers<T>(tile_.address(at.row, column), values);
    }

    // Numbers of channels in turn go to the columns of theirs.
    template <int kVector, int kChannels, class Walk>
    VLMK_DEVICE void store_pixels(const TileSpan& span, const Walk& walk, const PixelPlace& at,
                                  const Packed<Pixel, kVector>& access) const {
        const int channels = kChannels == 0 ? t_.channels : kChannels;
        const int along = at.number / channels, phase = at.number - along * channels;
        constexpr int kKinds = kVector < 3 || kChannels == 0 ? kVector : 3;
        uint32_t to[kKinds];
        PatchNorm norms[kKinds];
#pragma unroll
        for (int i = 0; i < kKinds; ++i) {
            const bool next = phase + i >= channels;
            const int channel = phase + i - (next ? channels : 0);
            norms[i] = norms_[channel * norm_step_];
            to[i] = tile_.address(at.row, channel * span.positions() + walk.position(at.run, along + (next ? 1 : 0)));
        }
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            store_numbers<T, 1>(to[i % kKinds] + i / kKinds * static_cast<int>(sizeof(T)),
                                {normalise(access, i, norms[i % kKinds])});
    }

    const PatchTiling& t_;
    const char* const pixels_;
    const Tile tile_;
    const PatchNorm* const norms_;
    const int norm_step_;
};

}  // namespace vlmk::gpu
