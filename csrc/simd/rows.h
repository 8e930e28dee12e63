// Rows of numbers: the left-hand side of a product in its units, and small operations on fp32 rows.
#pragma once
#include "simd/product.h"
#include "simd/transpose.h"

namespace vlmk::VLMK_ISA {

// Writes elements [j, j + kLanes) of a row of units; zeros from `elements` to the end of the depth.
template <class U>
inline void store_units(typename U::Unit* row, int64_t j, Vec v) {
    if constexpr (U::kDepth == 1)
        store(row + j, v);
    else
        store(reinterpret_cast<bf16*>(row) + j, v);
}
template <class U>
inline void clear_behind(typename U::Unit* row, int64_t elements) {
    for (int64_t k = elements / U::kDepth; k < units<U>(elements); ++k) row[k] = 0;
}

// Rows stored as units along the row: what product() broadcasts from (a_row = stride(), a_unit = 1).
template <class U>
class UnitRows;

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
    // Where the units of a row belong that are made from these floats one vector after the other: in their place.
    float* place_of(int64_t, float* floats) const { return floats; }
    LeftSide<F32Unit> placed(const float* floats, int64_t stride) const { return {floats, stride, 1}; }
    // The rows as they were set.
    LeftSide<F32Unit> left() const { return {data_.get(), stride_, 1}; }

  private:
    int64_t rows_, stride_;
    Buffer<float> data_;
};

template <>
class UnitRows<Bf16Unit> {
  public:
    UnitRows(int64_t rows, int64_t elements)
        : rows_(rows),
          stride_(Bf16Unit::kTiles ? spread_stride(units<Bf16Unit>(elements)) : units<Bf16Unit>(elements)),
          data_(rows * stride_) {}

    void set(int64_t row, const bf16* from, int64_t elements) {
        uint32_t* to = data_.get() + row * stride_;
        clear_behind<Bf16Unit>(to, elements);
        std::memcpy(to, from, static_cast<size_t>(elements) * sizeof(bf16));
    }
    // Rounds `elements` (a multiple of the vector length) floats of every row to bf16.
    LeftSide<Bf16Unit> from_floats(const float* rows, int64_t stride, int64_t elements) {
        for (int64_t r = 0; r < rows_; ++r) {
            uint32_t* to = data_.get() + r * stride_;
            clear_behind<Bf16Unit>(to, elements);
            convert_row(reinterpret_cast<bf16*>(to), rows + r * stride, elements);
        }
        return left();
    }
    uint32_t* place_of(int64_t row, float*) const { return data_.get() + row * stride_; }
    LeftSide<Bf16Unit> placed(const float*, int64_t) const { return left(); }
    LeftSide<Bf16Unit> left() const { return {data_.get(), stride_, 1}; }

  private:
    int64_t rows_, stride_;
    Buffer<uint32_t> data_;
};

// A matrix of floats used transposed: A(r, k) = matrix[k][r]. Units pair neighbouring rows of the matrix.
template <class U>
class UnitColumns;

template <>
class UnitColumns<F32Unit> {
  public:
    UnitColumns(int64_t, int64_t) {}
    LeftSide<F32Unit> from_floats(const float* matrix, int64_t stride, int64_t, int64_t) { return {matrix, 1, stride}; }
};

template <>
class UnitColumns<Bf16Unit> {
  public:
    UnitColumns(int64_t rows, int64_t columns)
        : stride_(Bf16Unit::kTiles ? spread_stride(units<Bf16Unit>(rows)) : columns),
          data_(Bf16Unit::kTiles ? stride_ * columns : units<Bf16Unit>(rows) * stride_) {}

    // `columns` is a multiple of the vector length.
    LeftSide<Bf16Unit> from_floats(const float* matrix, int64_t stride, int64_t rows, int64_t columns) {
        if constexpr (Bf16Unit::kTiles) {
            // Tiles are read along the units of a row: blocks of pairs are turned around.
            for (int64_t k = 0; k < units<Bf16Unit>(rows); k += kLanes)
                for (int64_t c = 0; c < columns; c += kLanes) {
                    Vec block[kLanes];
                    for (int i = 0; i < kLanes; ++i) block[i] = (Vec)pairs(matrix + c, stride, rows, k + i);
                    transpose(block);
                    for (int i = 0; i < kLanes; ++i) store_as(data_.get() + (c + i) * stride_ + k, block[i]);
                }
            return {data_.get(), stride_, 1};
        } else {
            for (int64_t k = 0; k < units<Bf16Unit>(rows); ++k)
                for (int64_t c = 0; c < columns; c += kLanes)
                    store_as(data_.get() + k * stride_ + c, pairs(matrix + c, stride, rows, k));
            return {data_.get(), 1, stride_};
        }
    }

  private:
    // Rows 2 k and 2 k + 1 of the matrix, one vector of columns; zeros behind the last row.
    static UintVec pairs(const float* matrix, int64_t stride, int64_t rows, int64_t k) {
        const Vec low = 2 * k < rows ? load(matrix + 2 * k * stride) : Vec{};
        const Vec high = 2 * k + 1 < rows ? load(matrix + (2 * k + 1) * stride) : Vec{};
        return widen(to_bf16_bits(low)) | widen(to_bf16_bits(high)) << 16;
    }

    int64_t stride_;
    Buffer<uint32_t> data_;
};

// sum = sum * factor + addend
inline void rescale_add(float* sum, float factor, const float* addend, int64_t padded) {
    for (int64_t i = 0; i < padded; i += kLanes) store(sum + i, load(sum + i) * splat(factor) + load(addend + i));
}

// <a, b> in fp32, several partial sums side by side.
template <class T>
inline float dot(const T* a, const T* b, int64_t count) {
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
