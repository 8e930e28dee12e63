// Packing the right-hand side of a product, converting to the product's units on the way.
#pragma once
#include "simd/transpose.h"
#include "simd/units.h"

namespace vlmk::VLMK_ISA {

// Unit k of all columns of B; see pack().
template <class U, class T>
void pack_unit(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride, int64_t elements,
               int64_t k) {
    const int64_t depth = units<U>(elements);
    for (int64_t p = 0, column = 0; p < panels.count; ++p) {
        const int64_t width = panels.width(p) * kLanes;
        typename U::Unit* panel = packed + column * depth;
        for (int64_t v = 0; v < width; v += kLanes, column += kLanes) {
            const auto vectors = column_units<U>(src + column, row_stride, k, elements, panels.columns - column);
            VLMK_UNROLL for (int i = 0; i < U::kParts; ++i)
                store_as(panel + unit_index<U>(k, i) * width + v, vectors.part[i]);
        }
    }
}

// B = the source: `elements` rows of `panels.columns` contiguous numbers, which are read from end to end.
template <class U, class T>
void pack(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride, int64_t elements) {
    const int64_t count = units<U>(elements) / U::kParts;
    for (int64_t k = 0; k < count; ++k) pack_unit<U>(packed, panels, src, row_stride, elements, k);
}

// One panel of B = the transposed source: one row of `elements` contiguous numbers per column. `packed` is where panel
// 0 starts.
template <class U, class T>
void pack_transposed_panel(typename U::Unit* packed, const Panels& panels, int64_t panel, const T* src,
                           int64_t row_stride, int64_t elements) {
    const int64_t depth = units<U>(elements), count = depth / U::kParts, first = panels.first_vector(panel) * kLanes,
                  width = panels.width(panel) * kLanes;
    packed += first * depth;
    for (int64_t lane = 0; lane < width; lane += kLanes)
        for (int64_t k = 0; k < count; k += kLanes) {
            Vec block[U::kParts][kLanes] = {};
            for (int i = 0; i < kLanes && first + lane + i < panels.columns; ++i) {
                const auto row = row_units<U>(src + (first + lane + i) * row_stride, k, elements);
                VLMK_UNROLL for (int n = 0; n < U::kParts; ++n) block[n][i] = row.part[n];
            }
            const int64_t rows = count - k < kLanes ? count - k : kLanes;
            for (int n = 0; n < U::kParts; ++n) {
                transpose(block[n]);
                for (int64_t i = 0; i < rows; ++i)
                    store_as(packed + unit_index<U>(k + i, n) * width + lane, block[n][i]);
            }
        }
}

template <class U, class T>
void pack_transposed(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride,
                     int64_t elements) {
    for (int64_t p = 0; p < panels.count; ++p) pack_transposed_panel<U>(packed, panels, p, src, row_stride, elements);
}

}  // namespace vlmk::VLMK_ISA
