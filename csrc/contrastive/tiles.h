// The walk over the matrix of logits, tile by tile, shared by both losses. Compiled per instruction set.
//
// For each tile: strips of rows are turned into logits and handed to the loss; where the loss wants gradients it
// replaces the logits by G = d loss / d z, and the walk adds G Y to the gradient of X and G^T X to that of Y. Tiles
// come one after the other and every sum has one owner, so the order of additions is fixed.
#pragma once
#include "contrastive/blocks.h"
#include "contrastive/problem.h"
#include "core/parallel.h"
#include "simd/math.h"
#include "simd/pack.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

inline int64_t blocks_of(int64_t total, int64_t size) { return (total + size - 1) / size; }
inline int64_t block_length(int64_t total, int64_t size, int64_t block) {
    return total - block * size < size ? total - block * size : size;
}

// A strip of rows of a tile: logits (later gradients) of rows [first_row, first_row + rows) with columns [first_column,
// first_column + columns).
struct Strip {
    int64_t index;  // within the tile
    int64_t first_row, rows, first_column, columns, stride;
    float* values;

    float* row(int64_t r) const { return values + r * stride; }
    int64_t padded() const { return blocks_of(columns, kLanes) * kLanes; }
};

inline float bias_of(const ContrastiveProblem& p) { return p.bias == nullptr ? 0.0f : *p.bias; }
inline float factor_of(const Features& f, int64_t i) { return f.factor == nullptr ? 1.0f : f.factor[i]; }

// z = scale * x_factor * y_factor * dot + bias in place; the padding becomes -inf.
inline void finish_logits(const ContrastiveProblem& p, const Strip& s) {
    const float scale = *p.scale, bias = bias_of(p);
    for (int64_t r = 0; r < s.rows; ++r) {
        float* z = s.row(r);
        const float factor = scale * factor_of(p.image, s.first_row + r);
        if (p.text.factor == nullptr)
            for (int64_t j = 0; j < s.padded(); j += kLanes) store(z + j, load(z + j) * splat(factor) + splat(bias));
        else
            for (int64_t j = 0; j < s.columns; ++j) z[j] = z[j] * (factor * p.text.factor[s.first_column + j]) + bias;
        for (int64_t j = s.columns; j < s.padded(); ++j) z[j] = -kInfinity;
    }
}

// Calls visit(r, j) for every positive pair of the strip.
template <class Visit>
inline void for_each_positive(const ContrastiveProblem& p, const Strip& s, const Visit& visit) {
    if (p.labels == Labels::none) return;
    for (int64_t r = 0; r < s.rows; ++r) {
        if (p.labels == Labels::diagonal) {
            const int64_t j = s.first_row + r + p.label_offset - s.first_column;
            if (j >= 0 && j < s.columns) visit(r, j);
            continue;
        }
        const int64_t group = p.image.group[s.first_row + r];
        const int64_t* groups = p.text.group + s.first_column;
        for (int64_t j = 0; j < s.columns; ++j)
            if (groups[j] == group) visit(r, j);
    }
}

// The sum of H Y for all rows of one side, in fp32: straight in the output where that is fp32 without padding.
template <class T>
class GradientSum {
  public:
    GradientSum(const Features& side, int64_t dim, bool wanted) : stride_(blocks_of(dim, kLanes) * kLanes) {
        if (!wanted) return;
        if constexpr (sizeof(T) == sizeof(float)) {
            if (stride_ == dim) data_ = static_cast<float*>(side.grad);
        }
        if (data_ == nullptr) {
            own_ = Buffer<float>(side.count * stride_);
            data_ = own_.get();
        }
        if (side.count > 0) fill_zero(data_, side.count * stride_);
    }
    float* row(int64_t i) const { return data_ + i * stride_; }
    int64_t stride() const { return stride_; }

  private:
    int64_t stride_;
    Buffer<float> own_;
    float* data_ = nullptr;
};

// From h_i = sum_j H_ij v_j to the gradient of the raw row u_i: scale * h_i, or through the normalisation scale * (h_i
// - f_i^2 u_i <u_i, h_i>).
template <class T>
void finish_gradient(const ContrastiveProblem& p, const Features& side, const GradientSum<T>& sum) {
    const float scale = *p.scale;
    parallel_for(blocks_of(side.count, kStrip), p.threads, [&](int64_t block) {
        const int64_t first = block * kStrip, last = first + block_length(side.count, kStrip, block);
        for (int64_t i = first; i < last; ++i) {
            const T* u = static_cast<const T*>(side.data) + i * side.row_stride;
            T* to = static_cast<T*>(side.grad) + i * p.dim;
            float* h = sum.row(i);
            const bool dot_for_scale = scale == 0.0f && &side == &p.image;
            float along = side.factor != nullptr || dot_for_scale ? dot(u, h, p.dim) : 0.0f;
            if (&side == &p.image) p.scale_dot[i] = dot_for_scale ? along : p.scale_dot[i] / scale;
            along *= side.factor == nullptr ? 0.0f : side.factor[i] * side.factor[i];
            for (int64_t d = 0; d < p.dim; d += kLanes) {
                const Vec across = load_partial(h + d, p.dim - d) - splat(along) * load_partial(u + d, p.dim - d);
                store_partial(to + d, splat(scale) * across, p.dim - d);
            }
        }
    });
}

// Walks all tiles. loss(strip) is called on several threads, once for every strip; after_tile(first_column, columns,
// strips) behind all strips of a tile.
template <class T, class Loss, class AfterTile>
void walk(const ContrastiveProblem& p, bool gradients, const Loss& loss, const AfterTile& after_tile) {
    using U = typename UnitOf<T>::type;
    const int64_t rows_side = tile_rows(), most_rows = p.image.count < rows_side ? p.image.count : rows_side,
                  most_columns = p.text.count < kTileColumns ? p.text.count : kTileColumns;
    const int64_t stride = spread_stride(most_columns);
    const Panels feature_panels(p.dim);
    Buffer<float> tile(most_rows * stride);
    Buffer<typename U::Unit> text_columns(packed_size<U>(p.dim, most_columns));
    Buffer<typename U::Unit> text_rows(gradients ? packed_size<U>(most_columns, p.dim) : 0);
    Buffer<typename U::Unit> image_rows(gradients ? packed_size<U>(most_rows, p.dim) : 0);
    const GradientSum<T> grad_image(p.image, p.dim, gradients), grad_text(p.text, p.dim, gradients);
    if (gradients && p.image.count > 0) fill_zero(p.scale_dot, p.image.count);

    for (int64_t tc = 0; tc < blocks_of(p.text.count, kTileColumns); ++tc) {
        const int64_t first_column = tc * kTileColumns, columns = block_length(p.text.count, kTileColumns, tc);
        const T* text = static_cast<const T*>(p.text.data) + first_column * p.text.row_stride;
        const Panels panels(columns);
        parallel_for(panels.count, p.threads, [&](int64_t panel) {
            pack_transposed_panel<U>(text_columns.get(), panels, panel, text, p.text.row_stride, p.dim);
        });
        if (gradients) pack<U>(text_rows.get(), feature_panels, text, p.text.row_stride, columns);
        const PackedB<U> text_right{panels, units<U>(p.dim), text_columns.get()};

        for (int64_t tr = 0; tr < blocks_of(p.image.count, rows_side); ++tr) {
            const int64_t first_row = tr * rows_side, rows = block_length(p.image.count, rows_side, tr);
            const T* image = static_cast<const T*>(p.image.data) + first_row * p.image.row_stride;
            const int64_t strips = blocks_of(rows, kStrip), together = kStrip * strips_at_once(strips, p.threads);
            parallel_for(blocks_of(rows, together), p.threads, [&](int64_t task) {
                const ProductScope scope;
                const int64_t offset = task * together, count = block_length(rows, together, task);
                UnitRows<U> features(count, p.dim);
                for (int64_t r = 0; r < count; ++r) features.set(r, image + (offset + r) * p.image.row_stride, p.dim);
                float* logits = tile.get() + offset * stride;
                product<U>(false, count, features.left(), text_right, logits, stride);
                for (int64_t r = 0; r < count; r += kStrip) {
                    const Strip strip{(offset + r) / kStrip,
                                      first_row + offset + r,
                                      count - r < kStrip ? count - r : kStrip,
                                      first_column,
                                      columns,
                                      stride,
                                      logits + r * stride};
                    finish_logits(p, strip);
                    loss(strip);
                }
            });
            after_tile(first_column, columns, strips);
            if (!gradients) continue;

            pack<U>(image_rows.get(), feature_panels, image, p.image.row_stride, rows);
            const PackedB<U> text_plain{feature_panels, units<U>(columns), text_rows.get()};
            const PackedB<U> image_plain{feature_panels, units<U>(rows), image_rows.get()};
            const int64_t padded = blocks_of(columns, kLanes) * kLanes;
            const int64_t row_tasks = blocks_of(rows, together);
            parallel_for(row_tasks + blocks_of(columns, together), p.threads, [&](int64_t task) {
                const ProductScope scope;
                if (task < row_tasks) {
                    const int64_t offset = task * together, count = block_length(rows, together, task);
                    UnitRows<U> h(count, padded);
                    const auto left = h.from_floats(tile.get() + offset * stride, stride, padded);
                    product<U>(true, count, left, text_plain, grad_image.row(first_row + offset), grad_image.stride());
                } else {
                    const int64_t block = task - row_tasks, offset = block * together,
                                  count = block_length(columns, together, block);
                    const int64_t width = blocks_of(count, kLanes) * kLanes;
                    UnitColumns<U> h(rows, width);
                    const auto left = h.from_floats(tile.get() + offset, stride, rows, width);
                    product<U>(true, count, left, image_plain, grad_text.row(first_column + offset),
                               grad_text.stride());
                }
            });
        }
    }
    if (!gradients) return;
    finish_gradient<T>(p, p.image, grad_image);
    finish_gradient<T>(p, p.text, grad_text);
}

// Multiplies a row of G by the factors of both sides: H, whose products with the raw features are the gradients.
inline void apply_factors(const ContrastiveProblem& p, const Strip& s, int64_t r) {
    float* g = s.row(r);
    if (p.image.factor == nullptr) return;
    const float factor = p.image.factor[s.first_row + r];
    for (int64_t j = 0; j < s.columns; ++j) g[j] *= factor * p.text.factor[s.first_column + j];
}

inline void clear_padding(const Strip& s) {
    for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t j = s.columns; j < s.padded(); ++j) s.row(r)[j] = 0.0f;
}

}  // namespace vlmk::VLMK_ISA
