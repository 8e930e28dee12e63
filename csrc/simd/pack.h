// Packing the right-hand side of a product, converting to the product's units on the way.
#pragma once
#include <type_traits>

#include "simd/product.h"
#include "simd/split.h"
#include "simd/transpose.h"

namespace vlmk::VLMK_ISA {

namespace detail {

template <int kParts>
struct Units {
    Vec part[kParts];
};
template <int kParts>
inline Units<kParts> split_units(Vec low, Vec high) {
    const Pairs<kParts> pairs = split_pairs<kParts>(low, high);
    Units<kParts> units;
    VLMK_UNROLL for (int i = 0; i < kParts; ++i) units.part[i] = (Vec)pairs.part[i];
    return units;
}

// Units [k, k + kLanes) of a row whose elements are contiguous; zero past `elements`.
template <class U, class T>
inline Units<U::kParts> row_units(const T* row, int64_t k, int64_t elements) {
    row += U::kDepth * k;
    elements -= U::kDepth * k;
    if (elements <= 0) return {};
    if constexpr (U::kDepth == 1) {
        return {{load_partial(row, elements)}};
    } else if constexpr (U::kParts > 1) {
        return split_units<U::kParts>(load_partial(row, elements),
                                      elements > kLanes ? load_partial(row + kLanes, elements - kLanes) : Vec{});
    } else if (std::is_same_v<T, bf16> && elements >= 2 * kLanes) {
        return {{load_as<Vec>(row)}};
    } else {
        const int64_t count = elements < 2 * kLanes ? elements : 2 * kLanes;
        bf16 pairs[2 * kLanes] = {};
        convert_row(pairs, row, count);
        return {{load_as<Vec>(pairs)}};
    }
}

// One vector of unit k for columns that are contiguous in every row of the source.
template <class U, class T>
inline Units<U::kParts> column_units(const T* src, int64_t row_stride, int64_t k, int64_t elements, int64_t columns) {
    const auto row = [&](int64_t i) { return i < elements ? load_partial(src + i * row_stride, columns) : Vec{}; };
    const int64_t first = first_element<U>(k);
    if constexpr (U::kDepth == 1)
        return {{row(first)}};
    else if constexpr (std::is_same_v<T, bf16> && U::kParts == 1)
        return {{(Vec)((UintVec)row(first) >> 16 | (UintVec)row(first + 1))}};
    else
        return split_units<U::kParts>(row(first), row(first + kPairDistance<U>));
}

}  // namespace detail

// B = the source: `elements` rows of `b.panels.columns` contiguous numbers.
template <class U, class T>
void pack(typename U::Unit* packed, const Panels& panels, const T* src, int64_t row_stride, int64_t elements) {
    const int64_t depth = units<U>(elements);
    // Rows of the source are read from end to end, as they lie in memory.
    for (int64_t k = 0; k < depth / U::kParts; ++k)
        for (int64_t p = 0, column = 0; p < panels.count; ++p) {
            const int64_t width = panels.width(p) * kLanes;
            typename U::Unit* panel = packed + column * depth;
            for (int64_t v = 0; v < width; v += kLanes, column += kLanes) {
                const auto vectors =
                    detail::column_units<U>(src + column, row_stride, k, elements, panels.columns - column);
                VLMK_UNROLL for (int i = 0; i < U::kParts; ++i)
                    store_as(panel + unit_index<U>(k, i) * width + v, vectors.part[i]);
            }
        }
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
                const auto row = detail::row_units<U>(src + (first + lane + i) * row_stride, k, elements);
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
