// Masks on a block of scores. Scores are in units of log 2: score * log2(e), so that the softmax is a power of two.
#pragma once
#include "attention/rows.h"
#include "simd/convert.h"
#include "simd/math.h"

namespace vlmk::VLMK_ISA {

inline void hide(float* scores, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) scores[j] = -kInfinity;
}

// True if for some row of the block and some tile that keys [begin, end) belong to, whether it is visible is as given.
template <class Block>
bool has_tile(const AttentionProblem& p, const Sequence& s, const Block& block, int64_t begin, int64_t end,
              bool visibility) {
    const int64_t first = begin / p.tokens_per_tile, last = (end - 1) / p.tokens_per_tile;
    if (last < SeenTiles::kTiles)
        return ((visibility ? block.tiles.some : ~block.tiles.all) & SeenTiles::bits(first, last)) != 0;
    const FlagTensor& visible = p.visible;
    for (int64_t r = 0; r < block.count; ++r) {
        const bool* row = visible.data + s.index * visible.batch_stride + block.rows[r].position * visible.row_stride;
        for (int64_t tile = first; tile <= last; ++tile)
            if (row[tile * visible.column_stride] == visibility) return true;
    }
    return false;
}

// True if keys [begin, end) can be skipped for all rows of the block.
template <class Block>
bool invisible(const AttentionProblem& p, const Sequence& s, const Block& block, int64_t begin, int64_t end) {
    if (end <= block.low || block.high <= begin) return true;
    return p.visible.data != nullptr && !has_tile(p, s, block, begin, end, true);
}

inline void apply_tiles(const AttentionProblem& p, const Sequence& s, const Row& row, int64_t begin, int64_t end,
                        float* scores) {
    const bool* visible = p.visible.data + s.index * p.visible.batch_stride + row.position * p.visible.row_stride;
    for (int64_t tile = begin / p.tokens_per_tile; tile * p.tokens_per_tile < end; ++tile)
        if (!visible[tile * p.visible.column_stride])
            hide(scores, std::max<int64_t>(tile * p.tokens_per_tile - begin, 0),
                 std::min((tile + 1) * p.tokens_per_tile, end) - begin);
}

inline void apply_padding(const AttentionProblem& p, const Sequence& s, const Row& row, int64_t begin, int64_t end,
                          float* scores) {
    if (!p.query_padding.data[s.index * p.query_padding.batch_stride + row.position * p.query_padding.row_stride])
        return;
    const bool* padding = p.key_padding.data + s.index * p.key_padding.batch_stride + begin * p.key_padding.row_stride;
    for (int64_t j = 0; j < end - begin; ++j)
        if (padding[j * p.key_padding.row_stride]) scores[j] = -kInfinity;
}

template <class T>
void add_bias(const T* bias, int64_t stride, int64_t count, float* scores) {
    if (stride == 1) {
        int64_t j = 0;
        for (; j + kLanes <= count; j += kLanes) store(scores + j, load(scores + j) + load(bias + j) * splat(kLog2E));
        for (; j < count; ++j) scores[j] += to_float(bias[j]) * kLog2E;
    } else {
        for (int64_t j = 0; j < count; ++j) scores[j] += to_float(bias[j * stride]) * kLog2E;
    }
}

inline void apply_mask(const AttentionProblem& p, const Sequence& s, const Row& row, int64_t begin, int64_t end,
                       float* scores) {
    const MaskTensor& mask = p.mask;
    const int64_t offset = s.index * mask.batch_stride + row.head * mask.head_stride + row.position * mask.row_stride +
                           begin * mask.column_stride;
    const int64_t count = end - begin;
    switch (mask.dtype) {
        case DType::boolean: {
            const bool* allowed = static_cast<const bool*>(mask.data) + offset;
            for (int64_t j = 0; j < count; ++j) scores[j] = allowed[j * mask.column_stride] ? scores[j] : -kInfinity;
            break;
        }
        case DType::bf16:
            return add_bias(static_cast<const bf16*>(mask.data) + offset, mask.column_stride, count, scores);
        case DType::f16:
            return add_bias(static_cast<const f16*>(mask.data) + offset, mask.column_stride, count, scores);
        default:
            return add_bias(static_cast<const float*>(mask.data) + offset, mask.column_stride, count, scores);
    }
}

// True if scores can stay raw products until the softmax multiplies them: nothing is added to them, and a positive
// factor keeps their order and -inf.
inline bool scales_late(const AttentionProblem& p) {
    const bool adds = p.mask.data != nullptr && p.mask.dtype != DType::boolean;
    return p.softcap == 0.0f && !adds && p.scale > 0.0f && p.scale < kInfinity;
}

// Turns raw products <q, k> of one row with keys [begin, end) into masked scores in place, but for the factor that is
// returned; the columns up to `padded` become -inf. `slope`, if not null, receives d score / d (scale * product) of the
// softcap.
inline float finish_scores(const AttentionProblem& p, const Sequence& s, const Row& row, int64_t begin, int64_t end,
                           int64_t padded, float* scores, float* slope) {
    const bool late = scales_late(p);
    if (p.softcap == 0.0f && !late) {
        const Vec factor = splat(p.scale * kLog2E);
        for (int64_t j = 0; j < padded; j += kLanes) store(scores + j, load(scores + j) * factor);
    }
    if (p.softcap != 0.0f) {
        const Vec inner = splat(p.scale / p.softcap), outer = splat(p.softcap * kLog2E);
        for (int64_t j = 0; j < padded; j += kLanes) {
            const Vec t = tanh(load(scores + j) * inner);
            store(scores + j, t * outer);
            if (slope != nullptr) store(slope + j, splat(1.0f) - t * t);
        }
    }
    hide(scores, end - begin, padded);
    if (!row.sees_all(begin, end)) {
        hide(scores, 0, std::clamp<int64_t>(row.low - begin, 0, end - begin));
        hide(scores, std::clamp<int64_t>(row.high - begin, 0, end - begin), end - begin);
    }
    if (p.mask.data != nullptr) apply_mask(p, s, row, begin, end, scores);
    if (p.visible.data != nullptr) apply_tiles(p, s, row, begin, end, scores);
    if (p.query_padding.data != nullptr) apply_padding(p, s, row, begin, end, scores);
    return late ? p.scale * kLog2E : 1.0f;
}

}  // namespace vlmk::VLMK_ISA
