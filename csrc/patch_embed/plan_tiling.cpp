#include "patch_embed/plan_tiling.h"

#include <algorithm>
#include <numeric>

#include "patch_embed/tiles.h"

namespace vlmk {
namespace {

int64_t bytes_of(DType dtype) { return dtype == DType::u8 ? 1 : dtype == DType::f32 ? 4 : 2; }

// All channels of a pixel next to each other, and pixels too.
bool channels_are_inside(const PatchSource& s, int64_t capacity) {
    const bool row = s.patch[2] == 1 || s.pixel_stride[2] == s.channels;
    return s.channels > 1 && s.channel_stride == 1 && row && s.channels <= capacity;
}

int64_t round_up(int64_t n, int64_t granule) { return (n + granule - 1) / granule * granule; }

// Whole runs as far as they fit, or parts of one: what leaves the fewest empty columns.
int choose_tile(const PatchTiling& t, int64_t capacity) {
    const int64_t most = capacity / t.channels;
    const bool whole = t.run <= most;
    const int64_t step = whole ? t.run : t.channels == 1 ? t.granule : std::min<int64_t>(8, most);
    // A tile costs a barrier or two and a wait, about as much as a granule of columns.
    const auto cost = [&](int64_t tile) {
        const int64_t length = whole ? t.positions : t.run, full = length / tile, rest = length % tile;
        return full * (round_up(tile * t.channels, t.granule) + t.granule) +
               (rest > 0 ? round_up(rest * t.channels, t.granule) + t.granule : 0);
    };
    int64_t best = std::min<int64_t>(step, most);
    for (int64_t tile = step; tile <= std::min<int64_t>(most, t.positions); tile += step)
        if (cost(tile) < cost(best)) best = tile;
    return static_cast<int>(best);
}

// The most numbers that an access can have: up to 16 bytes, aligned to its size wherever it may be.
int choose_vector(const PatchTiling& t, const PatchSource& s, const void* pixels, int64_t batch, int64_t element) {
    const bool dense = t.run == 1 || t.position_bytes == t.channels * element;
    if (!dense || (t.channels != 1 && t.channels != 3)) return 1;
    const auto fits = [&](int64_t vector) {
        const int64_t bytes = vector * element;
        bool all = reinterpret_cast<uintptr_t>(pixels) % bytes == 0;
        const auto add = [&](int64_t count, int64_t stride) { all = all && (count <= 1 || stride % bytes == 0); };
        add(batch, s.batch_stride * element);
        for (int i = 0; i < 3; ++i) add(s.grid[i], s.grid_stride[i] * element);
        add(t.run_count() / (t.frames * t.rows), t.channel_bytes);
        add(t.frames, t.frame_bytes);
        add(t.rows, t.row_bytes);
        const int64_t piece = t.splits_runs() ? t.tile : t.run, rest = t.splits_runs() ? t.run % t.tile : 0;
        return all && piece * t.channels % vector == 0 && rest * t.channels % vector == 0;
    };
    int64_t vector = 16 / element;
    while (vector > 1 && !fits(vector)) vector /= 2;
    return static_cast<int>(vector);
}

// The widest copy, 16 or 4 bytes, that every line of the images starts at a multiple of; 0 for none.
int line_access(const PatchTiling& t, const PatchSource& s, const void* pixels, int64_t batch) {
    for (const int bytes : {16, 4}) {
        bool all = reinterpret_cast<uintptr_t>(pixels) % bytes == 0;
        const auto add = [&](int64_t count, int64_t stride) { all = all && (count <= 1 || stride % bytes == 0); };
        add(batch, s.batch_stride);
        add(s.grid[0], s.grid_stride[0]);
        add(s.grid[1], s.grid_stride[1]);
        add(t.run_count() / (t.frames * t.rows), t.channel_bytes);
        add(t.frames, t.frame_bytes);
        add(t.rows, t.row_bytes);
        if (all) return bytes;
    }
    return 0;
}

// The most groups that tiles are in, which begin at multiples of `rows` patches.
int most_line_groups(const PatchTiling& t, int rows) {
    int most = 0;
    for (int skip = 0; skip < t.line; skip += std::gcd(rows, t.line)) {
        const int last = skip + rows - 1;
        most =
            std::max(most, last / t.line * t.groups_across() + last % t.line / kLinePatches - skip / kLinePatches + 1);
    }
    return most;
}

}  // namespace

void go_by_lines(PatchTiling& t, const PatchEmbedProblem& p, int rows, int most_bytes) {
    const PatchSource& s = p.source;
    // What is read four numbers at a time and written as it lies there gains nothing.
    const bool gains = t.channels == 3 || (t.channels == 1 && t.vector < 4);
    const bool neighbours = s.pixel_stride[2] == t.channels && s.grid_stride[2] == int64_t{t.run} * t.channels;
    if (s.dtype != DType::u8 || !gains || !neighbours || t.run % 2 != 0 || t.splits_runs() || s.patches() == 0) return;
    t.line_access = line_access(t, s, s.data, p.batch);
    if (t.line_access == 0) return;
    t.line = static_cast<int>(s.grid[2]);
    t.line_groups = most_line_groups(t, rows);
    if (t.line_bytes() > most_bytes || t.line_groups > rows / 2) t.line = t.line_groups = 0;
    t.run_reciprocal = Reciprocal::of(t.run);
    t.unit_reciprocal = Reciprocal::of(t.group_units());
}

PatchTiling make_patch_tiling(const PatchEmbedProblem& p, const void* pixels) {
    const PatchSource& s = p.source;
    const int64_t element = bytes_of(s.dtype), number = bytes_of(p.dtype);
    const int64_t capacity = patch_tile_numbers(static_cast<int>(number));
    PatchTiling t;
    t.granule = patch_granule(static_cast<int>(number));
    const bool inside = channels_are_inside(s, capacity);
    t.channels = inside ? static_cast<int>(s.channels) : 1;
    t.positions = static_cast<int>(s.elements() / t.channels);
    t.position_bytes = s.pixel_stride[2] * element;
    t.channel_bytes = s.channel_stride * element;
    t.frame_bytes = s.pixel_stride[0] * element;
    t.row_bytes = s.pixel_stride[1] * element;
    // Rows and frames that follow each other at the distance of pixels are one run.
    t.run = static_cast<int>(s.patch[2]);
    t.rows = static_cast<int>(s.patch[1]);
    t.frames = static_cast<int>(s.patch[0]);
    if (t.rows == 1 || s.pixel_stride[1] == s.patch[2] * s.pixel_stride[2]) {
        t.run *= t.rows;
        t.rows = 1;
        if (t.frames == 1 || s.pixel_stride[0] == s.patch[1] * s.patch[2] * s.pixel_stride[2]) {
            t.run *= t.frames;
            t.frames = 1;
        }
    }
    t.tile = choose_tile(t, capacity);
    t.vector = choose_vector(t, s, pixels, p.batch, element);
    return t;
}

}  // namespace vlmk
