// Packing the right-hand side of a product, converting to the product's units on the way.
#pragma once
#include "simd/product.h"

namespace vlmk::VLMK_ISA {

namespace detail {

// Unit k of a row whose elements are contiguous: reads elements [k * depth, ...), zero past `elements`.
template <class T>
inline float unit_at(const T* row, int64_t k, int64_t, F32Unit*) {
    return to_float(row[k]);
}
inline uint32_t unit_at(const bf16* row, int64_t k, int64_t elements, Bf16Unit*) {
    const uint32_t low = row[2 * k].bits;
    return 2 * k + 1 < elements ? low | static_cast<uint32_t>(row[2 * k + 1].bits) << 16 : low;
}

// One vector of unit k for columns that are contiguous in every row of the source.
template <class T>
inline Vec unit_vector(const T* src, int64_t row_stride, int64_t k, int64_t, int64_t columns, F32Unit*) {
    return load_partial(src + k * row_stride, columns);
}
inline UintVec unit_vector(const bf16* src, int64_t row_stride, int64_t k, int64_t elements, int64_t columns,
                           Bf16Unit*) {
    const UintVec low = (UintVec)load_partial(src + 2 * k * row_stride, columns) >> 16;
    if (2 * k + 1 >= elements) return low;
    return low | (UintVec)load_partial(src + (2 * k + 1) * row_stride, columns);
}

}  // namespace detail

// B = the source: `elements` rows of `b.panels.columns` contiguous numbers.
template <class U, class T>
void pack(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride, int64_t elements) {
    const int64_t depth = units<U>(elements);
    for (int64_t p = 0; p < panels.count; ++p) {
        const int64_t first = panels.first_vector(p), width = panels.width(p);
        for (int64_t k = 0; k < depth; ++k)
            for (int64_t v = 0; v < width; ++v, packed += kLanes) {
                const int64_t column = (first + v) * kLanes;
                store_as(packed, detail::unit_vector(src + column, row_stride, k, elements, panels.columns - column,
                                                     static_cast<U*>(nullptr)));
            }
    }
}

// One panel of B = the transposed source: one row of `elements` contiguous numbers per column. `packed` is where panel
// 0 starts.
template <class U, class T>
void pack_transposed_panel(typename U::Unit* packed, const Panels& panels, int64_t panel, const T* src,
                           int64_t row_stride, int64_t elements) {
    const int64_t depth = units<U>(elements), first = panels.first_vector(panel) * kLanes,
                  width = panels.width(panel) * kLanes;
    packed += first * depth;
    for (int64_t lane = 0; lane < width; ++lane) {
        const int64_t column = first + lane;
        if (column < panels.columns) {
            const T* row = src + column * row_stride;
            for (int64_t k = 0; k < depth; ++k)
                packed[k * width + lane] = detail::unit_at(row, k, elements, static_cast<U*>(nullptr));
        } else {
            for (int64_t k = 0; k < depth; ++k) packed[k * width + lane] = {};
        }
    }
}

template <class U, class T>
void pack_transposed(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride,
                     int64_t elements) {
    for (int64_t p = 0; p < panels.count; ++p) pack_transposed_panel<U>(packed, panels, p, src, row_stride, elements);
}

}  // namespace vlmk::VLMK_ISA
