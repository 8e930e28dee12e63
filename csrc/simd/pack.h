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
            const int64_t columns = panels.columns - first - lane;
            const T* from = src + (first + lane) * row_stride;
            if constexpr (U::kParts > 1) {
                Vec low[kLanes], high[kLanes];
                const int64_t begin = first_element<U>(k), second = begin + kPairDistance<U>;
                for (int i = 0; i < kLanes; ++i, from += row_stride) {
                    low[i] = i < columns ? load_partial(from + begin, elements - begin) : Vec{};
                    high[i] = i < columns && second < elements ? load_partial(from + second, elements - second) : Vec{};
                }
                turn_into_units<U>(low, high, [&](int i, int n, Vec part) {
                    store_as(packed + unit_index<U>(k + i, n) * width + lane, part);
                });
            } else {
                Vec block[kLanes] = {};
                for (int i = 0; i < kLanes && i < columns; ++i, from += row_stride)
                    block[i] = row_units<U>(from, k, elements).part[0];
                transpose(block);
                for (int64_t i = 0; i < kLanes && k + i < count; ++i)
                    store_as(packed + (k + i) * width + lane, block[i]);
            }
        }
}

template <class U, class T>
void pack_transposed(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride,
                     int64_t elements) {
    for (int64_t p = 0; p < panels.count; ++p) pack_transposed_panel<U>(packed, panels, p, src, row_stride, elements);
}

}  // namespace vlmk::VLMK_ISA
