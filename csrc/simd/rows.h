// Rows of numbers: the left-hand side of a product in its units, and small operations on fp32 rows.
#pragma once
#include "simd/product.h"
#include "simd/split.h"
#include "simd/transpose.h"

namespace vlmk::VLMK_ISA {

// Writes a row of units from what make(j) gives for elements [j, j + kLanes), j < padded (a multiple of kLanes); zeros
// from there to the end of the depth.
template <class U, class Make>
inline void write_units(typename U::Unit* row, int64_t padded, const Make& make) {
    if constexpr (U::kParts > 1) {
        for (int64_t j = 0; j < padded; j += 2 * kLanes) {
            const Vec low = make(j), high = j + kLanes < padded ? make(j + kLanes) : Vec{};
            const Pairs<U::kParts> pairs = split_pairs<U::kParts>(low, high);
            VLMK_UNROLL for (int i = 0; i < U::kParts; ++i) store_as(row + unit_index<U>(j / 2, i), pairs.part[i]);
        }
    } else if constexpr (U::kDepth == 2) {
        for (int64_t j = 0; j < padded; j += kLanes) store(reinterpret_cast<bf16*>(row) + j, make(j));
        for (int64_t k = padded / 2; k < units<U>(padded); ++k) row[k] = 0;
    } else {
        for (int64_t j = 0; j < padded; j += kLanes) store(row + j, make(j));
    }
}

// Rows stored as units along the row: what product() broadcasts from (a_row = stride(), a_unit = 1).
template <class U>
class UnitRows {
  public:
    UnitRows(int64_t rows, int64_t elements) : rows_(rows), stride_(row_stride(elements)), data_(rows * stride_) {}

    template <class T>
    void set(int64_t row, const T* from, int64_t elements) {
        write_units<U>(place_of(row, nullptr), whole_vectors(elements),
                       [&](int64_t j) { return load_partial(from + j, elements - j); });
    }
    // `elements` (a multiple of the vector length) floats of every row.
    LeftSide<U> from_floats(const float* rows, int64_t stride, int64_t elements) {
        for (int64_t r = 0; r < rows_; ++r) set(r, rows + r * stride, elements);
        return left();
    }
    // Where the units of a row belong that are made one vector after the other.
    uint32_t* place_of(int64_t row, float*) const { return data_.get() + row * stride_; }
    LeftSide<U> placed(const float*, int64_t) const { return left(); }
    // The rows as they were set.
    LeftSide<U> left() const { return {data_.get(), stride_, 1}; }

  private:
    static int64_t whole_vectors(int64_t elements) { return (elements + kLanes - 1) / kLanes * kLanes; }
    static int64_t row_stride(int64_t elements) {
        const int64_t count = units<U>(whole_vectors(elements));
        return U::kTiles ? spread_stride(count) : count;
    }

    int64_t rows_, stride_;
    Buffer<uint32_t> data_;
};

template <>
class UnitRows<F32Unit> {
  public:
    UnitRows(int64_t rows, int64_t elements) : rows_(rows), stride_(elements) {}

    template <class T>
    void set(int64_t row, const T* from, int64_t elements) {
        if (!data_) data_ = Buffer<float>(rows_ * stride_);
        convert_row(data_.get() + row * stride_, from, elements);
    }
    // Rows that are floats already are used where they are.
    LeftSide<F32Unit> from_floats(const float* rows, int64_t stride, int64_t) { return {rows, stride, 1}; }
    // The floats are replaced.
    float* place_of(int64_t, float* floats) const { return floats; }
    LeftSide<F32Unit> placed(const float* floats, int64_t stride) const { return {floats, stride, 1}; }
    LeftSide<F32Unit> left() const { return {data_.get(), stride_, 1}; }

  private:
    int64_t rows_, stride_;
    Buffer<float> data_;
};

// A matrix of floats used transposed: A(r, k) = matrix[k][r]. Units pair rows of the matrix.
template <class U>
class UnitColumns {
  public:
    UnitColumns(int64_t rows, int64_t columns)
        : stride_(U::kTiles ? spread_stride(units<U>(rows)) : columns),
          data_(U::kTiles ? stride_ * columns : units<U>(rows) * stride_) {}

    // `columns` is a multiple of the vector length.
    LeftSide<U> from_floats(const float* matrix, int64_t stride, int64_t rows, int64_t columns) {
        const int64_t pair_count = units<U>(rows) / U::kParts;
        if constexpr (U::kTiles) {
            // Tiles are read along the units of a row: blocks of pairs are turned around.
            for (int64_t k = 0; k < pair_count; k += kLanes)
                for (int64_t c = 0; c < columns; c += kLanes) {
                    Vec block[U::kParts][kLanes];
                    for (int i = 0; i < kLanes; ++i) {
                        const Pairs<U::kParts> pairs = pairs_of(matrix + c, stride, rows, k + i);
                        for (int n = 0; n < U::kParts; ++n) block[n][i] = (Vec)pairs.part[n];
                    }
                    for (int n = 0; n < U::kParts; ++n) {
                        transpose(block[n]);
                        for (int i = 0; i < kLanes; ++i)
                            store_as(data_.get() + (c + i) * stride_ + unit_index<U>(k, n), block[n][i]);
                    }
                }
            return {data_.get(), stride_, 1};
        } else {
            for (int64_t k = 0; k < pair_count; ++k)
                for (int64_t c = 0; c < columns; c += kLanes)
                    store_as(data_.get() + k * stride_ + c, pairs_of(matrix + c, stride, rows, k).part[0]);
            return {data_.get(), 1, stride_};
        }
    }

  private:
    // Unit k of one vector of columns; zeros behind the last row.
    static Pairs<U::kParts> pairs_of(const float* matrix, int64_t stride, int64_t rows, int64_t k) {
        const int64_t first = first_element<U>(k), second = first + kPairDistance<U>;
        return split_pairs<U::kParts>(first < rows ? load(matrix + first * stride) : Vec{},
                                      second < rows ? load(matrix + second * stride) : Vec{});
    }

    int64_t stride_;
    Buffer<uint32_t> data_;
};

template <>
class UnitColumns<F32Unit> {
  public:
    UnitColumns(int64_t, int64_t) {}
    LeftSide<F32Unit> from_floats(const float* matrix, int64_t stride, int64_t, int64_t) { return {matrix, 1, stride}; }
};

// sum = sum * factor + addend
inline void rescale_add(float* sum, float factor, const float* addend, int64_t padded) {
    for (int64_t i = 0; i < padded; i += kLanes) store(sum + i, load(sum + i) * splat(factor) + load(addend + i));
}

// <a, b> in fp32, several partial sums side by side.
template <class A, class B>
inline float dot(const A* a, const B* b, int64_t count) {
    Vec sum{};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) sum = sum + load(a + i) * load(b + i);
    if (i < count) sum = sum + load_partial(a + i, count - i) * load_partial(b + i, count - i);
    return reduce_add(sum);
}

template <class T>
inline void fill_zero(T* to, int64_t count) {
    if (count > 0) std::memset(static_cast<void*>(to), 0, static_cast<size_t>(count) * sizeof(T));
}

}  // namespace vlmk::VLMK_ISA
