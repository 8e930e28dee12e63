// What a block knows about its patches: where their pixels are, and their tokens; about the runs of a tile; and how
// pixels are normalised.
#pragma once
#include <cstddef>

#include "gpu/device.cuh"
#include "patch_embed/launch.h"
#include "patch_embed/tiles.h"

namespace vlmk::gpu {

// x = pixel * scale + shift
struct PatchNorm {
    float scale, shift;
};

// Some of kLinePatches neighbours on a line: the tile's rows `row` + `begin` to `row` + `end`. Bytes are those of all
// of them in one run.
struct alignas(16) PatchGroup {
    int row, begin, end;  // `row` is negative where the tile starts among them
    int valid;            // bytes from here on do not exist
    int from, to;         // bytes that fours of positions reach into
    int64_t bytes;        // from the first pixel to that of the first of the group
};

struct PatchRun {
    int64_t bytes;   // from the first pixel of a patch to the first of the run that is in the tile
    PatchNorm norm;  // where it is all of one channel
};

// In shared memory behind the tiles. Two sets of runs, or of half as many patches, for what is next beside what is now.
struct PatchTables {
    int64_t pixels[kPatchRows];  // bytes from the first pixel
    int tokens[kPatchRows];      // of all tokens
    int positions[kPatchRows];   // rows of `position`, or -1
    PatchRun runs[2][kPatchRuns];
    TileSpan spans[2];
    PatchGroup groups[kPatchGroups];
    PatchNorm norms[1];  // of as many channels as differ
};
static_assert(offsetof(PatchTables, norms) == kPatchTableBytes && sizeof(PatchNorm) == kPatchNormBytes,
              "plan and kernel agree about shared memory");

// The patches of a tile: `rows` from `first` on, a multiple of 32, of which `live` exist; at index `begin` of the
// tables.
struct PatchSet {
    int first, rows, live, begin;
};

// Patches from `first` on at index `begin` of the tables; those past the last are like it. By all threads.
VLMK_DEVICE void find_patches(const PatchEmbedProblem& p, int first, int count, int element_bytes, int begin,
                              PatchTables& tables) {
    const PatchSource& s = p.source;
    const int patches = static_cast<int>(s.patches()), last = static_cast<int>(p.batch) * patches - 1;
    const int height = static_cast<int>(s.grid[1]), width = static_cast<int>(s.grid[2]);
    for (int r = static_cast<int>(threadIdx.x); r < count; r += static_cast<int>(blockDim.x)) {
        const int patch = min(first + r, last), image = patch / patches, at = patch % patches;
        const int w = at % width, h = at / width % height, t = at / width / height;
        const int64_t token = p.first_patch_token() + at;
        tables.pixels[begin + r] = element_bytes * (image * s.batch_stride + t * s.grid_stride[0] +
                                                    h * s.grid_stride[1] + w * s.grid_stride[2]);
        tables.tokens[begin + r] = static_cast<int>(image * p.tokens() + token);
        tables.positions[begin + r] = static_cast<int>(p.position_row(token));
    }
}

// The groups that the patches of a tile are in, and empty ones behind them.
VLMK_DEVICE void find_groups(const PatchLaunch& launch, const PatchSet& set, PatchTables& tables) {
    const PatchTiling& t = launch.tiling;
    const PatchSource& s = launch.problem.source;
    if (t.line == 0) return;
    const int skip = set.first % t.line, line_bytes = t.run * t.channels;
    for (int i = static_cast<int>(threadIdx.x); i < t.line_groups; i += static_cast<int>(blockDim.x)) {
        const int at = skip / kLinePatches + i, line = at / t.groups_across();
        const int patch = (at - line * t.groups_across()) * kLinePatches, row = line * t.line + patch - skip;
        const int begin = max(-row, 0), end = max(min(min(kLinePatches, t.line - patch), set.rows - row), 0);
        const int all = set.first / t.line + line;  // of the batch
        const int h = all % static_cast<int>(s.grid[1]), frame = all / static_cast<int>(s.grid[1]);
        const int time = frame % static_cast<int>(s.grid[0]), image = frame / static_cast<int>(s.grid[0]);
        PatchGroup& g = tables.groups[set.begin / 2 + i];
        g.row = row;
        g.begin = begin;
        g.end = end;
        g.valid = max(min(end, set.live - row), 0) * line_bytes;
        g.from = begin * t.run / 4 * 4 * t.channels;
        g.to = (end * t.run + 3) / 4 * 4 * t.channels;
        g.bytes = image * s.batch_stride + time * s.grid_stride[0] + h * s.grid_stride[1] + patch * line_bytes;
    }
}

// One for each channel where there are means or deviations, else one for all.
VLMK_DEVICE bool norms_differ(const PatchEmbedProblem& p) { return p.mean != nullptr || p.deviation != nullptr; }

VLMK_DEVICE void find_norms(const PatchEmbedProblem& p, PatchTables& tables) {
    const int count = norms_differ(p) ? static_cast<int>(p.source.channels) : 1;
    for (int c = static_cast<int>(threadIdx.x); c < count; c += static_cast<int>(blockDim.x))
        tables.norms[c] = {p.scale(c), p.shift(c)};
}

// Which part of a patch a tile has, and its runs; norms are known. By the first warp, so that others need not divide.
VLMK_DEVICE void find_tile(const PatchLaunch& launch, int index, int element_bytes, int set, PatchTables& tables) {
    if (threadIdx.x >= kWarpLanes) return;
    const PatchTiling& t = launch.tiling;
    const TileSpan span = t.span(index);
    if (threadIdx.x == 0) tables.spans[set] = span;
    const bool dense = t.channels > 1;
    for (int r = static_cast<int>(threadIdx.x); r < span.runs; r += kWarpLanes) {
        const int run = span.run + r, row = run % t.rows, frame = run / t.rows % t.frames;
        const int channel = run / t.rows / t.frames;
        const int64_t along = dense ? int64_t{span.begin} * t.channels * element_bytes : span.begin * t.position_bytes;
        tables.runs[set][r] = {channel * t.channel_bytes + frame * t.frame_bytes + row * t.row_bytes + along,
                               tables.norms[norms_differ(launch.problem) ? channel : 0]};
    }
}

}  // namespace vlmk::gpu
