// Bytes of images on their way into a tile, where patches are neighbours along the lines of an image. Lines are copied
// as they lie in memory, beside computation, 16 bytes at a time whatever the size of a patch; from there they become
// numbers, four positions a lane.
#pragma once
#include "gpu/copy_async.cuh"
#include "gpu/packed.cuh"
#include "patch_embed/patch_rows.cuh"

namespace vlmk::gpu {

// Where a lane's four positions of eight patches go, in tiles whose rows are an odd number of 16 bytes apart. As pairs,
// to two patches maybe, where a run is no multiple of four: lanes go along the line, and the 28 that have eight runs of
// 14 pixels meet every bank once. Else as fours, which shared memory takes from half a warp at a time: that has two
// neighbouring fours of each patch, 16 bytes of 16-bit numbers in each of eight rows.
template <bool kPairs>
struct LinePlace {
    static constexpr int kStores = kPairs ? 2 : 1;
    int access;  // of those to the eight patches' positions
    int patch[kStores], position[kStores];

    VLMK_DEVICE static int turns(int run) { return kPairs ? (2 * run + 31) / 32 : (run + 15) / 16; }

    VLMK_DEVICE LinePlace(const PatchTiling& t, int turn) {
        const int lane = lane_index(), run = t.run;
        if constexpr (kPairs) {
            access = lane + kWarpLanes * turn;
#pragma unroll
            for (int i = 0; i < kStores; ++i) {
                patch[i] = t.run_reciprocal.divide(4 * access + 2 * i);
                position[i] = 4 * access + 2 * i - patch[i] * run;
            }
        } else {
            const int along = 4 * turn + lane / 16 * 2 + lane % 2;
            const bool exists = 4 * along < run;
            patch[0] = exists ? lane % 16 / 2 : kLinePatches;  // none
            position[0] = 4 * along;
            access = (patch[0] * run + position[0]) / 4;
        }
    }
};

template <class Tile>
class PixelLines {
    using T = typename Tile::Element;

  public:
    // Bytes wait from `base` on.
    VLMK_DEVICE PixelLines(const PatchLaunch& launch, const Tile& tile, uint32_t base, const PatchTables& tables)
        : launch_(launch), t_(launch.tiling), tile_(tile), base_(base), tables_(tables) {}

    // Starts the copies of what a tile has of patches.
    VLMK_DEVICE void start(const TileSpan& span, const PatchRun* runs, const PatchSet& set) const {
        if (t_.line_access == 16)
            copy<16>(span, runs, set);
        else
            copy<4>(span, runs, set);
    }

    // Numbers of what has arrived.
    VLMK_DEVICE void finish(const TileSpan& span, const PatchRun* runs, const PatchSet& set) const {
        const bool pairs = t_.run % 4 != 0;
        if (t_.channels == 1)
            pairs ? convert<1, true>(span, runs, set) : convert<1, false>(span, runs, set);
        else
            pairs ? convert<3, true>(span, runs, set) : convert<3, false>(span, runs, set);
    }

  private:
    VLMK_DEVICE int warp() const { return static_cast<int>(threadIdx.x) / kWarpLanes; }
    VLMK_DEVICE const PatchGroup* groups(const PatchSet& set) const { return tables_.groups + set.begin / 2; }
    // The runs of a group lie one behind the other.
    VLMK_DEVICE uint32_t lines_of(int index, const TileSpan& span) const {
        return base_ + index * span.runs * t_.group_bytes();
    }

    // A warp has a group at a time: neighbouring lanes neighbouring units of kAccess bytes of its line, and other lines
    // where units are few.
    template <int kAccess>
    VLMK_DEVICE void copy(const TileSpan& span, const PatchRun* runs, const PatchSet& set) const {
        const int units = t_.group_units(), warps = static_cast<int>(blockDim.x) / kWarpLanes;
        const int lines = max(t_.unit_reciprocal.divide(kWarpLanes), 1), stride = lines * t_.group_bytes();
        const int first = t_.unit_reciprocal.divide(lane_index());
        if (first >= lines) return;
#pragma unroll 1
        for (int index = warp(); index < t_.line_groups; index += warps) {
            const PatchGroup g = groups(set)[index];
#pragma unroll 1
            for (int unit = lane_index() - first * units; unit < units; unit += kWarpLanes) {
                const int byte = unit * kAccess;
                if (byte + kAccess <= g.from || byte >= g.to) continue;
                const int valid = max(min(g.valid - byte, kAccess), 0);
                const char* from = static_cast<const char*>(launch_.problem.source.data);
                if (valid > 0) from += g.bytes + byte;
                uint32_t to = lines_of(index, span) + first * t_.group_bytes() + byte;
#pragma unroll 2
                for (const PatchRun* run = runs + first; run < runs + span.runs; run += lines, to += stride)
                    copy_async_or_zero<kAccess>(to, from + (valid > 0 ? run->bytes : 0), valid);
            }
        }
    }

    // A warp has half a group at a time.
    template <int kChannels, bool kPairs>
    VLMK_DEVICE void convert(const TileSpan& span, const PatchRun* runs, const PatchSet& set) const {
        constexpr int kBytes = static_cast<int>(sizeof(T));
        using Place = LinePlace<kPairs>;
        const int warps = static_cast<int>(blockDim.x) / kWarpLanes, stride = t_.group_bytes();
        const int to_step = span.length * kBytes, channel_step = span.positions() * kBytes,
                  norm_step = norms_differ(launch_.problem) ? 1 : 0;
        PatchNorm norms[kChannels];
#pragma unroll
        for (int c = 0; c < kChannels; ++c) norms[c] = tables_.norms[c * norm_step];
#pragma unroll 1
        for (int turn = 0; turn < Place::turns(t_.run); ++turn) {
            const Place place(t_, turn);
#pragma unroll 1
            for (int half = warp(); half < 2 * t_.line_groups; half += warps) {
                const PatchGroup& g = groups(set)[half / 2];
                const int first = half % 2 * (kLinePatches / 2);
                uint32_t from = lines_of(half / 2, span) + (first * t_.run + place.access * 4) * kChannels;
                uint32_t to[Place::kStores];
                bool has[Place::kStores], any = false;
#pragma unroll
                for (int s = 0; s < Place::kStores; ++s) {
                    const int patch = first + place.patch[s];
                    has[s] = place.patch[s] < kLinePatches / 2 && g.begin <= patch && patch < g.end;
                    any = any || has[s];
                    to[s] = tile_.address(g.row + patch, place.position[s]);
                }
                if (!any) continue;
#pragma unroll 2
                for (const PatchRun* run = runs; run < runs + span.runs; ++run, from += stride) {
                    Packed<uint8_t, 4> words[kChannels];
#pragma unroll
                    for (int w = 0; w < kChannels; ++w) words[w].words[0] = load_shared<uint32_t>(from + 4 * w);
                    if constexpr (kChannels == 1) norms[0] = run->norm;
#pragma unroll
                    for (int c = 0; c < kChannels; ++c) {
                        float values[4];
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            const int number = k * kChannels + c;
                            values[k] = fmaf(words[number / 4][number % 4], norms[c].scale, norms[c].shift);
                        }
                        store<kPairs>(values, to, has, c * channel_step);
                    }
#pragma unroll
                    for (int s = 0; s < Place::kStores; ++s) to[s] += to_step;
                }
            }
        }
    }

    template <bool kPairs, int kStores>
    VLMK_DEVICE static void store(const float (&values)[4], const uint32_t (&to)[kStores], const bool (&has)[kStores],
                                  int shift) {
        if constexpr (kPairs) {
            if (has[0]) store_numbers<T, 2>(to[0] + shift, {values[0], values[1]});
            if (has[1]) store_numbers<T, 2>(to[1] + shift, {values[2], values[3]});
        } else {
            store_numbers<T>(to[0] + shift, values);
        }
    }

    const PatchLaunch& launch_;
    const PatchTiling& t_;
    const Tile tile_;
    const uint32_t base_;
    const PatchTables& tables_;
};

}  // namespace vlmk::gpu
