// Masks on a block of scores whose columns are query rows.
#pragma once
#include "attention/mask.h"
#include "core/buffer.h"
#include "simd/product.h"
#include "simd/rows.h"
#include "simd/transpose.h"

namespace vlmk::VLMK_ISA {

namespace detail {

template <class Block>
bool any_row_is_padding(const AttentionProblem& p, const Sequence& s, const Block& block) {
    const FlagTensor& padding = p.query_padding;
    for (int64_t r = 0; r < block.count; ++r)
        if (padding.data[s.index * padding.batch_stride + block.rows[r].position * padding.row_stride]) return true;
    return false;
}

// Hides what lies outside of the rows' ranges of keys.
template <class Block>
void hide_out_of_range(const Block& block, int64_t begin, int64_t end, float* scores, int64_t stride) {
    for (int64_t v = 0; v < stride; v += kLanes) {
        IntVec low{}, high = splat(static_cast<int32_t>(end - begin));
        int64_t all_from = 0, all_to = end - begin;  // keys that all rows of the vector see
        for (int64_t i = 0; i < kLanes && v + i < block.count; ++i) {
            const Row& row = block.rows[v + i];
            const int64_t from = std::clamp<int64_t>(row.low - begin, 0, end - begin),
                          to = std::clamp<int64_t>(row.high - begin, 0, end - begin);
            low[i] = static_cast<int32_t>(from), high[i] = static_cast<int32_t>(to);
            all_from = std::max(all_from, from), all_to = std::min(all_to, to);
        }
        for (int64_t j = 0; j < end - begin; ++j) {
            if (j == all_from && j < all_to) j = all_to;
            if (j == end - begin) break;
            const IntVec key = splat(static_cast<int32_t>(j));
            float* at = scores + j * stride + v;
            store(at, select((low <= key) & (key < high), load(at), splat(-kInfinity)));
        }
    }
}

}  // namespace detail

// rows x columns -> columns x rows, in blocks of kLanes; both have room for whole blocks of rows of `from`.
inline void transpose_into(float* to, int64_t to_stride, const float* from, int64_t from_stride, int64_t rows,
                           int64_t columns) {
    for (int64_t i = 0; i < rows; i += kLanes)
        for (int64_t j = 0; j < columns; j += kLanes) {
            Vec block[kLanes];
            for (int l = 0; l < kLanes; ++l) block[l] = load(from + (i + l) * from_stride + j);
            transpose(block);
            for (int l = 0; l < kLanes && j + l < columns; ++l) store(to + (j + l) * to_stride + i, block[l]);
        }
}

// finish_scores() for the rows of a block, which are columns of `scores` (and of `slopes`, which only a softcap
// writes), keys [begin, end) `stride` apart; there is room for whole vectors of keys. Masks that differ from key to key
// are applied to rows, for which the scores are turned around and back.
template <class Block>
float finish_columns(const AttentionProblem& p, const Sequence& s, const Block& block, int64_t begin, int64_t end,
                     float* scores, int64_t stride, float* slopes = nullptr) {
    const bool in_columns = scales_late(p) && p.mask.data == nullptr &&
                            (p.visible.data == nullptr || !has_tile(p, s, block, begin, end, false)) &&
                            (p.query_padding.data == nullptr || !detail::any_row_is_padding(p, s, block));
    if (in_columns) {
        if (!block.all_see(begin, end)) detail::hide_out_of_range(block, begin, end, scores, stride);
        return p.scale * kLog2E;
    }
    const int64_t count = end - begin, padded = (count + kLanes - 1) / kLanes * kLanes,
                  row_stride = spread_stride(padded);
    Buffer<float> rows(stride * row_stride), slope_rows(slopes != nullptr ? stride * row_stride : 0);
    transpose_into(rows.get(), row_stride, scores, stride, count, stride);
    float factor = 1.0f;
    for (int64_t r = 0; r < block.count; ++r)
        factor = finish_scores(p, s, block.rows[r], begin, end, padded, rows.get() + r * row_stride,
                               slopes != nullptr ? slope_rows.get() + r * row_stride : nullptr);
    // Columns without a row have probability 0, and slopes that are numbers: 0 times what memory held may be NaN.
    if (slopes != nullptr) fill_zero(slope_rows.get() + block.count * row_stride, (stride - block.count) * row_stride);
    transpose_into(scores, stride, rows.get(), row_stride, stride, count);
    if (slopes != nullptr) transpose_into(slopes, stride, slope_rows.get(), row_stride, stride, count);
    return factor;
}

}  // namespace vlmk::VLMK_ISA
