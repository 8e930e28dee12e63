// Scratch memory of kernels: aligned to a cache line, uninitialised, freed at scope end. Not std::vector, because
// kernel sources are compiled for several instruction sets and must not share library template instances.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "core/inline.h"

namespace vlmk {

template <class T>
class Buffer {
  public:
    VLMK_INLINE Buffer() {}
    VLMK_INLINE explicit Buffer(int64_t count) {
        if (count <= 0) return;
        const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        data_ = static_cast<T*>(std::aligned_alloc(kAlignment, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
    }
    VLMK_INLINE Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    VLMK_INLINE Buffer& operator=(Buffer&& other) noexcept {
        T* mine = data_;
        data_ = other.data_;
        other.data_ = mine;
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    VLMK_INLINE ~Buffer() { std::free(data_); }

    VLMK_INLINE T* get() const { return data_; }
    VLMK_INLINE T& operator[](int64_t i) const { return data_[i]; }
    VLMK_INLINE explicit operator bool() const { return data_ != nullptr; }

  private:
    static constexpr size_t kAlignment = 64;
    T* data_ = nullptr;
};

}  // namespace vlmk
