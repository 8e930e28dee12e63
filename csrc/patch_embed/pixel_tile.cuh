// Pixels of a block's patches into a shared tile of patches by numbers: normalised in fp32, rounded to the products'
// type. Where they are of that type and not to be normalised, they go by copies beside computation.
#pragma once
#include <type_traits>

#include "gpu/shared_tile.cuh"
#include "patch_embed/pixel_lines.cuh"
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

// Where the numbers of an access go, of the first run: to the columns of their channels. kChannels as in with_access.
template <class Tile, int kVector, int kChannels>
class PixelStore {
    using T = typename Tile::Element;
    static constexpr int kKinds = kChannels == 1 ? 1 : kVector < 3 ? kVector : 3;  // channels among them

  public:
    VLMK_DEVICE void place(const Tile& tile, const PatchTiling& t, const TileSpan& span, const PixelPlace& at,
                           const PatchNorm* norms, int norm_step) {
        if constexpr (kChannels == 1) {
            to_[0] = tile.address(at.row, at.number);
        } else {
            const int channels = kChannels == 0 ? t.channels : kChannels;
            const int along = at.number / channels, phase = at.number - along * channels;
#pragma unroll
            for (int i = 0; i < kKinds; ++i) {
                const bool next = phase + i >= channels;
                const int channel = phase + i - (next ? channels : 0);
                to_[i] = tile.address(at.row, channel * span.positions() + along + (next ? 1 : 0));
                norms_[i] = norms[channel * norm_step];
            }
        }
    }

    VLMK_DEVICE uint32_t address() const { return to_[0]; }

    // `shift`: bytes to the columns of a run.
    template <class Pixel>
    VLMK_DEVICE void store(const Packed<Pixel, kVector>& access, const PatchNorm& of_run, int shift) const {
        if constexpr (kChannels == 1) {
            float values[kVector];
#pragma unroll
            for (int i = 0; i < kVector; ++i) values[i] = fmaf(access[i], of_run.scale, of_run.shift);
            store_numbers<T>(to_[0] + shift, values);
        } else {
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                const PatchNorm& norm = norms_[i % kKinds];
                store_numbers<T, 1>(to_[i % kKinds] + shift + i / kKinds * static_cast<int>(sizeof(T)),
                                    {fmaf(access[i], norm.scale, norm.shift)});
            }
        }
    }

  private:
    uint32_t to_[kKinds];
    PatchNorm norms_[kKinds];
};

template <class Tile, class Pixel>
class PixelTile {
    using T = typename Tile::Element;

  public:
    // Lines wait in shared memory from `lines` on.
    VLMK_DEVICE PixelTile(const PatchLaunch& launch, const Tile& tile, uint32_t lines, const PatchTables& tables)
        : launch_(launch), tile_(tile), lines_(launch, tile, lines, tables), tables_(tables) {}

    // What can go on beside computation, in a group of copies of its own: nothing is written to the tile. `tile` is one
    // of the two in the tables.
    VLMK_DEVICE void start(int tile, const PatchSet& set) const {
        if constexpr (sizeof(Pixel) == 1)
            if (by_lines()) lines_.start(TileSpan(tables_.spans[tile]), tables_.runs[tile], set);
        commit_copies();
    }

    // The rest, by all threads, one group of copies later. Patches that do not exist become any finite numbers. Copies
    // are committed with those after.
    VLMK_DEVICE void finish(int tile, const PatchSet& set) const {
        const TileSpan span = tables_.spans[tile];
        if constexpr (sizeof(Pixel) == 1)
            if (by_lines()) {
                wait_copies<1>();
                __syncthreads();
                return lines_.finish(span, tables_.runs[tile], set);
            }
        with_access<sizeof(Pixel)>(launch_.tiling, [&](auto vector, auto channels) {
            load_as<decltype(vector)::value, decltype(channels)::value>(span, tables_.runs[tile], set.rows, set.live,
                                                                        tables_.pixels + set.begin);
        });
    }

  private:
    VLMK_DEVICE bool by_lines() const { return launch_.tiling.line > 0; }

    template <int kVector, int kChannels>
    VLMK_DEVICE void load_as(const TileSpan& span, const PatchRun* runs, int rows, int live,
                             const int64_t* pixels) const {
        using Access = Packed<Pixel, kVector>;
        const PatchTiling& t = launch_.tiling;
        const PixelWalk<kVector> walk(t, span, rows);
        const int norm_step = norms_differ(launch_.problem) ? 1 : 0;
#pragma unroll 1
        for (int turn = walk.first_turn(); turn < walk.turns(); turn += walk.turn_step()) {
            const PixelPlace at = walk.place(turn);
            const char* from = static_cast<const char*>(launch_.problem.source.data) + pixels[at.row] +
                               walk.along(t, at, sizeof(Pixel));
            PixelStore<Tile, kVector, kChannels> to;
            to.place(tile_, t, span, at, tables_.norms, norm_step);
            const int shift = span.length * static_cast<int>(sizeof(T));
            if constexpr (kChannels == 1 && std::is_same_v<T, Pixel> && Access::kBytes >= 4) {
                if (norm_step == 0 && at.row < live) {
#pragma unroll 4
                    for (int run = walk.first_run(); run < span.runs; run += walk.run_step())
                        copy_async<Access::kBytes>(to.address() + run * shift, from + runs[run].bytes);
                    continue;
                }
            }
            constexpr int kRuns = Access::kBytes <= 8 ? 4 : 2;
            if (Access::kBytes <= 4 && span.runs > kRuns * walk.run_step())
                convert_runs<2 * kRuns, Access>(walk, span.runs, runs, from, at.row < live, to, shift);
            else
                convert_runs<kRuns, Access>(walk, span.runs, runs, from, at.row < live, to, shift);
        }
    }

    // kRuns loads under way together.
    template <int kRuns, class Access, class Walk, class Store>
    VLMK_DEVICE static void convert_runs(const Walk& walk, int count, const PatchRun* runs, const char* from,
                                         bool reads, const Store& to, int shift) {
#pragma unroll 1
        for (int run = walk.first_run(); run < count; run += kRuns * walk.run_step()) {
            Access accesses[kRuns];
#pragma unroll
            for (int i = 0; i < kRuns; ++i) {
                const int at = run + i * walk.run_step();
                if (at < count && reads) accesses[i] = Access::load(from + runs[at].bytes);
            }
#pragma unroll
            for (int i = 0; i < kRuns; ++i) {
                const int at = run + i * walk.run_step();
                if (at < count) to.store(accesses[i], runs[at].norm, at * shift);
            }
        }
    }

    const PatchLaunch& launch_;
    const Tile tile_;
    const PixelLines<Tile> lines_;
    const PatchTables& tables_;
};

}  // namespace vlmk::gpu
