// What the mask tensors let the rows of a warp see of a block of keys: nothing, which need not be loaded, everything,
// which needs no mask, or something between.
#pragma once
#include "attention/rows.cuh"
#include "gpu/convert.cuh"

namespace vlmk::gpu {

// Both may be true of a block that is in fact between; then it is one that masks must be applied to.
struct Sight {
    bool some;   // a row may see a key
    bool every;  // every row sees every key, and nothing is added to its score
};

struct Place {
    int head, position;
};

VLMK_DEVICE Sight sight_of(const MaskTensor& mask, int64_t at) {
    if (mask.dtype == DType::boolean) {
        const bool seen = static_cast<const bool*>(mask.data)[at];
        return {seen, seen};
    }
    const float added = mask.dtype == DType::bf16  ? to_float(static_cast<const bf16*>(mask.data)[at])
                        : mask.dtype == DType::f16 ? to_float(static_cast<const f16*>(mask.data)[at])
                                                   : static_cast<const float*>(mask.data)[at];
    return {added != -infinity(), added == 0.0f};
}

// All lanes, for `rows` rows, 16 or 32, that place(row) finds, and `count` keys.
template <class FindPlace>
VLMK_DEVICE Sight look(const AttentionProblem& p, const Sequence& s, int key, int count, int rows,
                       const FindPlace& place) {
    Sight all{true, true};
    if (p.visible.data != nullptr) {  // a row a lane
        const int position = place(lane_index() % rows).position, tokens = static_cast<int>(p.tokens_per_tile);
        const bool* visible = p.visible.data + s.index * p.visible.batch_stride + position * p.visible.row_stride;
        Sight row{false, true};
        for (int tile = key / tokens; tile <= (key + count - 1) / tokens; ++tile) {
            const bool seen = visible[tile * p.visible.column_stride];
            row.some = row.some || seen;
            row.every = row.every && seen;
        }
        all = {__any_sync(kWholeWarp, row.some) != 0, __all_sync(kWholeWarp, row.every) != 0};
    }
    if (p.mask.data != nullptr) {  // a key a lane, so that neighbours read neighbours
        const bool same = p.mask.row_stride == 0 && p.mask.head_stride == 0;
        Sight keys{false, true};
        for (int row = 0; row < (same ? 1 : rows); ++row) {
            const Place at = place(row);
            const int64_t start =
                s.index * p.mask.batch_stride + at.head * p.mask.head_stride + at.position * p.mask.row_stride;
            for (int i = lane_index(); i < count; i += kWarpLanes) {
                const Sight one = sight_of(p.mask, start + (key + i) * p.mask.column_stride);
                keys.some = keys.some || one.some;
                keys.every = keys.every && one.every;
            }
        }
        all.some = __any_sync(kWholeWarp, keys.some) && all.some;
        all.every = __all_sync(kWholeWarp, keys.every) && all.every;
    }
    return all;
}

// Whether none of `count` keys is padding. All lanes.
VLMK_DEVICE bool free_of_padding(const AttentionProblem& p, const Sequence& s, int key, int count) {
    const bool* padding = p.key_padding.data + s.index * p.key_padding.batch_stride;
    bool none = true;
    for (int i = lane_index(); i < count; i += kWarpLanes)
        none = none && !padding[(key + i) * p.key_padding.row_stride];
    return __all_sync(kWholeWarp, none);
}

}  // namespace vlmk::gpu
