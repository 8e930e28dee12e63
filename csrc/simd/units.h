// Vectors of a product's units out of matrices of any element type.
#pragma once
#include <type_traits>

#include "simd/product.h"
#include "simd/split.h"
#include "simd/transpose.h"

namespace vlmk::VLMK_ISA {

// The parts of kLanes units.
template <int kParts>
struct Units {
    Vec part[kParts];
};

// Units whose first and second elements are these.
template <class U>
inline Units<U::kParts> make_units(Vec first, Vec second) {
    if constexpr (U::kDepth == 1) {
        return {{first}};
    } else {
        const Pairs<U::kParts> pairs = split_pairs<U::kParts>(first, second);
        Units<U::kParts> units;
        VLMK_UNROLL for (int i = 0; i < U::kParts; ++i) units.part[i] = (Vec)pairs.part[i];
        return units;
    }
}

// A vector of pairs as they lie in memory, zeros past `count` numbers.
inline Vec load_pairs(const bf16* from, int64_t count) {
    if (count >= 2 * kLanes) return load_as<Vec>(from);
#if VLMK_LANES == 16 && defined(__AVX512BW__)
    return (Vec)_mm512_maskz_loadu_epi16((1u << count) - 1u, from);
#else
    bf16 pairs[2 * kLanes] = {};
    std::memcpy(pairs, from, static_cast<size_t>(count) * sizeof(bf16));
    return load_as<Vec>(pairs);
#endif
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
        return make_units<U>(load_partial(row, elements),
                             elements > kLanes ? load_partial(row + kLanes, elements - kLanes) : Vec{});
    } else if constexpr (std::is_same_v<T, bf16>) {
        return {{load_pairs(row, elements)}};
    } else {
        const int64_t count = elements < 2 * kLanes ? elements : 2 * kLanes;
        bf16 pairs[2 * kLanes] = {};
        convert_row(pairs, row, count);
        return {{load_as<Vec>(pairs)}};
    }
}

// One vector of unit k for columns that are contiguous in every row of the matrix.
template <class U, class T>
inline Units<U::kParts> column_units(const T* matrix, int64_t row_stride, int64_t k, int64_t elements,
                                     int64_t columns) {
    const auto row = [&](int64_t i) { return i < elements ? load_partial(matrix + i * row_stride, columns) : Vec{}; };
    const int64_t first = first_element<U>(k);
    if constexpr (U::kDepth == 1)
        return {{row(first)}};
    else if constexpr (std::is_same_v<T, bf16> && U::kParts == 1)
        return {{(Vec)((UintVec)row(first) >> 16 | (UintVec)row(first + 1))}};
    else
        return make_units<U>(row(first), row(first + kPairDistance<U>));
}

// Two blocks turned around and written as units, for numbers of several parts: give(i, part, vector) receives kLanes
// units whose first and second elements were column i of `first` and of `second`. Splitting after the turn leaves two
// blocks to turn and not one for every part.
template <class U, class Give>
inline void turn_into_units(Vec (&first)[kLanes], Vec (&second)[kLanes], const Give& give) {
    transpose(first);
    transpose(second);
    VLMK_UNROLL for (int i = 0; i < kLanes; ++i) {
        const auto units = make_units<U>(first[i], second[i]);
        VLMK_UNROLL for (int n = 0; n < U::kParts; ++n) give(i, n, units.part[n]);
    }
}

}  // namespace vlmk::VLMK_ISA
