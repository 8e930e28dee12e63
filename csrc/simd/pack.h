// Packing the right-hand side of a product, converting to the product's units on the way.
#pragma once
#include "simd/product.h"
#include "simd/transpose.h"

namespace vlmk::VLMK_ISA {

namespace detail {

// Units [k, k + kLanes) of a row whose elements are contiguous; zero past `elements`.
template <class T>
inline Vec row_units(const T* row, int64_t k, int64_t elements, F32Unit*) {
    return load_partial(row + k, elements - k);
}
inline Vec row_units(const bf16* row, int64_t k, int64_t elements, Bf16Unit*) {
    const int64_t left = elements - 2 * k;
    if (left >= 2 * kLanes) return load_as<Vec>(row + 2 * k);
    if (left <= 0) return Vec{};
    bf16 pairs[2 * kLanes] = {};
    std::memcpy(pairs, row + 2 * k, static_cast<size_t>(left) * sizeof(bf16));
    return load_as<Vec>(pairs);
}

// One vector of unit k for columns that are contiguous in every row of the source.
template <class T>
inline Vec unit_vector(const T* src, int64_t row_stride, int64_t k, int64_t, int64_t columns, F32Unit*) {
    return load_partial(src + k * row_stride, columns);
}
inline UintVec unit_vector(const bf16* src, int64_t row_stride, int64_t k, int64_t elements, int64_t columns,
                           Bf16Unit*) {
    if (2 * k >= elements) return UintVec{};
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
    for (int64_t lane = 0; lane < width; lane += kLanes)
        for (int64_t k = 0; k < depth; k += kLanes) {
            Vec block[kLanes];
            for (int i = 0; i < kLanes; ++i) {
                const int64_t column = first + lane + i;
                block[i] = column < panels.columns
                               ? detail::row_units(src + column * row_stride, k, elements, static_cast<U*>(nullptr))
                               : Vec{};
            }
            transpose(block);
            const int64_t rows = depth - k < kLanes ? depth - k : kLanes;
            for (int64_t i = 0; i < rows; ++i) store_as(packed + (k + i) * width + lane, block[i]);
        }
}

template <class U, class T>
void pack_transposed(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride,
                     int64_t elements) {
    for (int64_t p = 0; p < panels.count; ++p) pack_transposed_panel<U>(packed, panels, p, src, row_stride, elements);
}

}  // namespace vlmk::VLMK_ISA
