// Reading patches out of the pixels and writing gradients back. A patch is a list of runs: pixels along a row of one
// channel.
#pragma once
#include "core/buffer.h"
#include "core/dispatch.h"
#include "patch_embed/problem.h"
#include "simd/convert.h"

namespace vlmk::VLMK_ISA {

struct Runs {
    struct Run {
        int64_t offset;  // from the first pixel of the patch
        float scale, shift;
    };
    int64_t length, stride, count;
    Buffer<Run> run;

    explicit Runs(const PatchEmbedProblem& p)
        : length(p.source.patch[2]),
          stride(p.source.pixel_stride[2]),
          count(p.source.channels * p.source.patch[0] * p.source.patch[1]),
          run(count) {
        const PatchSource& s = p.source;
        int64_t i = 0;
        for (int64_t c = 0; c < s.channels; ++c)
            for (int64_t frame = 0; frame < s.patch[0]; ++frame)
                for (int64_t row = 0; row < s.patch[1]; ++row)
                    run[i++] = {c * s.channel_stride + frame * s.pixel_stride[0] + row * s.pixel_stride[1], p.scale(c),
                                p.shift(c)};
    }
};

// Where patch `index` (of all batch items, raster order) begins.
inline int64_t patch_offset(const PatchSource& s, int64_t index) {
    const int64_t batch = index / s.patches(), patch = index % s.patches();
    const int64_t w = patch % s.grid[2], h = patch / s.grid[2] % s.grid[1], t = patch / (s.grid[1] * s.grid[2]);
    return batch * s.batch_stride + t * s.grid_stride[0] + h * s.grid_stride[1] + w * s.grid_stride[2];
}

// to[i] = from[i * stride] * scale + shift
template <class T>
inline void gather_run(float* to, const T* from, int64_t count, int64_t stride, float scale, float shift) {
    int64_t i = 0;
    if (stride == 1) {
        for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i) * splat(scale) + splat(shift));
        if (i < count)
            store_partial(to + i, load_partial(from + i, count - i) * splat(scale) + splat(shift), count - i);
        return;
    }
    for (; i < count; ++i) to[i] = to_float(from[i * stride]) * scale + shift;
}

// Runs [first, last) of a patch, normalised, one after the other.
template <class T>
inline void gather(const PatchEmbedProblem& p, const Runs& runs, int64_t patch, int64_t first, int64_t last,
                   float* to) {
    const T* from = static_cast<const T*>(p.source.data) + patch_offset(p.source, patch);
    for (int64_t i = first; i < last; ++i, to += runs.length) {
        const auto [offset, scale, shift] = runs.run[i];
        gather_run(to, from + offset, runs.length, runs.stride, scale, shift);
    }
}

inline void gather_any(const PatchEmbedProblem& p, const Runs& runs, int64_t patch, int64_t first, int64_t last,
                       float* to) {
    if (p.source.dtype == DType::u8) return gather<uint8_t>(p, runs, patch, first, last, to);
    with_float_type(p.source.dtype, [&](auto number) { gather<decltype(number)>(p, runs, patch, first, last, to); });
}

// The gradient of a whole patch, to where its pixels are.
template <class T>
inline void scatter(const PatchEmbedProblem& p, const Runs& runs, int64_t patch, const float* from) {
    T* to = static_cast<T*>(p.grad_pixels) + patch_offset(p.source, patch);
    for (int64_t r = 0; r < runs.count; ++r, from += runs.length) {
        const auto [offset, scale, shift] = runs.run[r];
        for (int64_t i = 0; i < runs.length; ++i) from_float(from[i] * scale, to[offset + i * runs.stride]);
    }
}

}  // namespace vlmk::VLMK_ISA
