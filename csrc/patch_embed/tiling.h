// How the numbers of a patch are cut into tiles, so that pixels are read in the order they lie in memory. A patch is a
// list of runs: positions at a fixed distance. Where all channels of a pixel lie next to each other a position has all
// of them, else it is a single number of the patch.
#pragma once
#include <cstdint>

#include "core/inline.h"

namespace vlmk {

// The part of a patch in one tile: `runs` runs from `run` on, of each `length` positions from `begin` on. Tiles are
// positions one after the other; their columns go through the channels first, as the weight does.
struct TileSpan {
    int run, begin, length, runs;

    VLMK_HOST_DEVICE VLMK_INLINE int positions() const { return runs * length; }
};

// Patches of a line that go together (pixel_lines.cuh). Where runs are even their bytes are a multiple of 32: no two
// groups ask for the same sector.
constexpr int kLinePatches = 16;

// Divides by d < 2^10 what is less than 2^10: the error of 2^-21 at most is less than 1 / d then.
struct Reciprocal {
    uint32_t value = 0;

    VLMK_HOST_DEVICE VLMK_INLINE static Reciprocal of(int d) { return {((1u << 21) + d - 1) / d}; }
    VLMK_HOST_DEVICE VLMK_INLINE int divide(int x) const { return static_cast<int>(x * value >> 21); }
};

struct PatchTiling {
    int channels = 1;   // numbers of a position
    int positions = 0;  // of a patch
    int run = 0;        // positions of a run
    int tile = 0;       // positions of a tile: whole runs, or a part of one
    int vector = 1;     // numbers of an access
    int granule = 16;   // columns of a tile are rounded up to it

    // Runs are numbered by channel, frame and row; sizes of 1 where runs go through all of them, or positions do.
    int frames = 1, rows = 1;
    int64_t channel_bytes = 0, frame_bytes = 0, row_bytes = 0;  // from one to the next
    int64_t position_bytes = 0;

    // Where bytes go by whole lines, which have `line` patches and start at multiples of `line_access` bytes, and the
    // patches of a tile are in up to `line_groups` groups of kLinePatches; 0 where they do not. With the reciprocals of
    // what kernels divide by.
    int line = 0, line_access = 0, line_groups = 0;
    Reciprocal run_reciprocal, unit_reciprocal;

    VLMK_HOST_DEVICE VLMK_INLINE int groups_across() const { return (line + kLinePatches - 1) / kLinePatches; }
    VLMK_HOST_DEVICE VLMK_INLINE int group_bytes() const { return kLinePatches * run * channels; }
    VLMK_HOST_DEVICE VLMK_INLINE int group_units() const { return group_bytes() / line_access; }
    VLMK_HOST_DEVICE VLMK_INLINE int line_bytes() const {  // of a tile
        return line_groups * (splits_runs() ? 1 : tile / run) * group_bytes();
    }

    VLMK_HOST_DEVICE VLMK_INLINE int run_count() const { return positions / run; }
    VLMK_HOST_DEVICE VLMK_INLINE bool splits_runs() const { return tile < run; }
    VLMK_HOST_DEVICE VLMK_INLINE int parts() const { return (run + tile - 1) / tile; }  // of a run that is split
    VLMK_HOST_DEVICE VLMK_INLINE int tiles() const {
        return splits_runs() ? run_count() * parts() : (positions + tile - 1) / tile;
    }
    VLMK_HOST_DEVICE VLMK_INLINE TileSpan span(int index) const {
        if (splits_runs()) {
            const int begin = index % parts() * tile;
            return {index / parts(), begin, smaller(tile, run - begin), 1};
        }
        const int first = index * (tile / run);
        return {first, 0, run, smaller(tile / run, run_count() - first)};
    }
    VLMK_HOST_DEVICE VLMK_INLINE int first_position(const TileSpan& s) const { return s.run * run + s.begin; }
    VLMK_HOST_DEVICE VLMK_INLINE int columns(const TileSpan& s) const { return s.positions() * channels; }
    VLMK_HOST_DEVICE VLMK_INLINE int rounded_columns(const TileSpan& s) const {
        return (columns(s) + granule - 1) / granule * granule;
    }

  private:
    VLMK_HOST_DEVICE VLMK_INLINE static int smaller(int a, int b) { return a < b ? a : b; }
};

}  // namespace vlmk
