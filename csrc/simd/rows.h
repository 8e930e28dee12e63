// Rows of numbers: the left-hand side of a product in its units, and small operations on fp32 rows.
#pragma once
#include "simd/product.h"

namespace vlmk::VLMK_ISA {

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
    const float* from_floats(const float* rows, int64_t stride, int64_t) {
        stride_ = stride;
        return rows;
    }
    const float* data() const { return data_.get(); }
    int64_t stride() const { return stride_; }

  private:
    int64_t rows_, stride_;
    Buffer<float> data_;
};

template <>
class UnitRows<Bf16Unit> {
  public:
    UnitRows(int64_t rows, int64_t elements) : rows_(rows), stride_(units<Bf16Unit>(elements)), data_(rows * stride_) {}

    void set(int64_t row, const bf16* from, int64_t elements) {
        uint32_t* to = data_.get() + row * stride_;
        to[stride_ - 1] = 0;
        std::memcpy(to, from, static_cast<size_t>(elements) * sizeof(bf16));
    }
    // Rounds `elements` (a multiple of the vector length) floats of every row to bf16.
    const uint32_t* from_floats(const float* rows, int64_t stride, int64_t elements) {
        for (int64_t r = 0; r < rows_; ++r)
            convert_row(reinterpret_cast<bf16*>(data_.get() + r * stride_), rows + r * stride, elements);
        return data_.get();
    }
    const uint32_t* data() const { return data_.get(); }
    int64_t stride() const { return stride_; }

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
    const float* from_floats(const float* matrix, int64_t stride, int64_t, int64_t) {
        stride_ = stride;
        return matrix;
    }
    int64_t unit_stride() const { return stride_; }

  private:
    int64_t stride_ = 0;
};

template <>
class UnitColumns<Bf16Unit> {
  public:
    UnitColumns(int64_t rows, int64_t columns) : stride_(columns), data_(units<Bf16Unit>(rows) * columns) {}
    const uint32_t* from_floats(const float* matrix, int64_t stride, int64_t rows, int64_t columns) {
        for (int64_t r = 0; r < rows; r += 2)
            for (int64_t c = 0; c < columns; c += kLanes) {
                const UintVec low = __builtin_convertvector(to_bf16_bits(load(matrix + r * stride + c)), UintVec);
                const Vec next = r + 1 < rows ? load(matrix + (r + 1) * stride + c) : Vec{};
                store_as(data_.get() + r / 2 * stride_ + c, low | __builtin_convertvector(to_bf16_bits(next), UintVec)
                                                                      << 16);
            }
        return data_.get();
    }
    int64_t unit_stride() const { return stride_; }

  private:
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
