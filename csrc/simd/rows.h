// Rows of numbers: the left-hand side of a product in its units, and small operations on fp32 rows.
#pragma once
#include "simd/transpose.h"
#include "simd/units.h"

namespace vlmk::VLMK_ISA {

inline int64_t whole_vectors(int64_t elements) { return (elements + kLanes - 1) / kLanes * kLanes; }

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

// Asks for a row that is read (written) soon. The empty statement is an effect in the compiler's eyes: GCC removes
// calls of functions that do nothing but ask.
template <int kWrite = 0, class T>
inline void ask_for(const T* row, int64_t count) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    asm volatile("");
    for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(row + i, kWrite);
}

// A row stored as units along the row: what product() broadcasts from, rows `stride` units apart.
template <class U>
struct RowUnits {
    using Unit = typename U::Unit;
    int64_t stride;

    explicit RowUnits(int64_t elements) {
        if constexpr (U::kDepth == 1)
            stride = elements;
        else
            stride = U::kTiles ? spread_stride(units<U>(elements)) : units<U>(whole_vectors(elements));
    }
    template <class T>
    static void write(Unit* row, const T* from, int64_t elements) {
        if constexpr (U::kDepth == 1)
            convert_row(row, from, elements);
        else if constexpr (U::kParts == 1 && std::is_same_v<T, bf16>)
            for (int64_t k = 0; k < units<U>(elements); k += kLanes)
                store_units(row + k, row_units<U>(from, k, elements).part[0], units<U>(elements) - k);
        else
            write_units<U>(row, whole_vectors(elements),
                           [&](int64_t j) { return load_partial(from + j, elements - j); });
    }

  private:
    static void store_units(Unit* to, Vec v, int64_t count) { store_partial(reinterpret_cast<float*>(to), v, count); }
};

// Columns stored as units: A(r, k) = matrix[k][r] of a matrix of `rows` x `columns`. Units pair rows of the matrix.
template <class U>
struct ColumnUnits {
    using Unit = typename U::Unit;
    int64_t stride, size;

    ColumnUnits(int64_t rows, int64_t columns) {
        const int64_t padded = Panels(columns).padded_columns();
        stride = U::kTiles ? spread_stride(units<U>(rows)) : padded;
        size = U::kTiles ? stride * padded : units<U>(rows) * stride;
    }
    LeftSide<U> left(const Unit* data) const {
        if constexpr (U::kTiles) return {data, stride, 1};
        return {data, 1, stride};
    }
    // Columns up to the next multiple of the vector length become zeros. The matrix goes on up to row `readable`, and
    // its next rows are asked for early.
    template <class T>
    void write(Unit* to, const T* matrix, int64_t matrix_stride, int64_t rows, int64_t columns,
               int64_t readable = 0) const {
        const int64_t count = units<U>(rows) / U::kParts;
        for (int64_t k = 0; k < count; k += kLanes) {
            const int64_t group = U::kDepth * kLanes, next = U::kDepth * k + group;
            for (int64_t row = next; row < next + group && row < readable; ++row)
                ask_for(matrix + row * matrix_stride, columns);
            for (int64_t c = 0; c < columns; c += kLanes) {
                const auto vector = [&](int64_t unit) {
                    return column_units<U>(matrix + c, matrix_stride, unit, rows, columns - c).part[0];
                };
                // Tiles are read along the units of a row: blocks of pairs are turned around.
                if constexpr (U::kParts > 1) {
                    const auto row = [&](int64_t r) {
                        return r < rows ? load_partial(matrix + r * matrix_stride + c, columns - c) : Vec{};
                    };
                    Vec low[kLanes], high[kLanes];
                    const int64_t first = first_element<U>(k);
                    for (int i = 0; i < kLanes; ++i)
                        low[i] = row(first + i), high[i] = row(first + i + kPairDistance<U>);
                    turn_into_units<U>(low, high, [&](int i, int n, Vec part) {
                        store_as(to + (c + i) * stride + unit_index<U>(k, n), part);
                    });
                } else if constexpr (U::kTiles) {
                    Vec block[kLanes];
                    for (int i = 0; i < kLanes; ++i) block[i] = vector(k + i);
                    transpose(block);
                    for (int i = 0; i < kLanes; ++i) store_as(to + (c + i) * stride + k, block[i]);
                } else {
                    for (int64_t i = k; i < k + kLanes && i < count; ++i) store_as(to + i * stride + c, vector(i));
                }
            }
        }
    }
};

// Rows of floats, or of tensors, as the left-hand side of products.
template <class U>
class UnitRows {
  public:
    UnitRows(int64_t rows, int64_t elements) : rows_(rows), layout_(elements) {
        if constexpr (U::kDepth > 1) reserve();
    }

    template <class T>
    void set(int64_t row, const T* from, int64_t elements) {
        if constexpr (U::kDepth == 1) reserve();
        layout_.write(data_.get() + row * layout_.stride, from, elements);
    }
    // Rows of floats, which are used where they are if units are floats: set_floats() row by row, then left_of() all.
    void set_floats(int64_t row, const float* from, int64_t elements) {
        if constexpr (U::kDepth > 1) set(row, from, elements);
    }
    LeftSide<U> left_of(const float* rows, int64_t stride) const {
        if constexpr (U::kDepth == 1) return {rows, stride, 1};
        return left();
    }
    LeftSide<U> from_floats(const float* rows, int64_t stride, int64_t elements) {
        for (int64_t r = 0; r < rows_; ++r) set_floats(r, rows + r * stride, elements);
        return left_of(rows, stride);
    }
    // The rows as they were set.
    LeftSide<U> left() const { return {data_.get(), layout_.stride, 1}; }

  private:
    void reserve() {
        if (!data_) data_ = Buffer<typename U::Unit>(rows_ * layout_.stride);
    }

    int64_t rows_;
    RowUnits<U> layout_;
    Buffer<typename U::Unit> data_;
};

// A matrix of floats used transposed: A(r, k) = matrix[k][r]; used where it is if units are floats.
template <class U>
class UnitColumns {
  public:
    UnitColumns(int64_t rows, int64_t columns) : layout_(rows, columns), data_(U::kDepth > 1 ? layout_.size : 0) {}

    // `columns` is a multiple of the vector length.
    LeftSide<U> from_floats(const float* matrix, int64_t stride, int64_t rows, int64_t columns) {
        if constexpr (U::kDepth == 1) {
            return {matrix, 1, stride};
        } else {
            layout_.write(data_.get(), matrix, stride, rows, columns);
            return layout_.left(data_.get());
        }
    }

  private:
    ColumnUnits<U> layout_;
    Buffer<typename U::Unit> data_;
};

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
