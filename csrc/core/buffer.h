// Scratch memory of kernels: aligned to a cache line, uninitialised, given back at scope end. Not std::vector, because
// kernel sources are compiled for several instruction sets and must not share library template instances.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

#include "core/inline.h"

namespace vlmk {

// Memory that a thread keeps for its next call instead of handing it back to the system (blocks up to 8 MiB, 32 MiB in
// all): fresh pages cost more than many kernels do. Builds with the address sanitizer keep nothing.
void* take_scratch(size_t bytes);
void give_scratch(void* memory, size_t bytes) noexcept;

template <class T>
class Buffer {
  public:
    VLMK_INLINE Buffer() {}
    VLMK_INLINE explicit Buffer(int64_t count) {
        if (count <= 0) return;
        bytes_ = static_cast<size_t>(count) * sizeof(T);
        data_ = static_cast<T*>(take_scratch(bytes_));
    }
    VLMK_INLINE Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
    VLMK_INLINE Buffer& operator=(Buffer&& other) noexcept {
        T* data = data_;
        const size_t bytes = bytes_;
        data_ = other.data_, bytes_ = other.bytes_;
        other.data_ = data, other.bytes_ = bytes;
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    VLMK_INLINE ~Buffer() { give_scratch(data_, bytes_); }

    VLMK_INLINE T* get() const { return data_; }
    VLMK_INLINE T& operator[](int64_t i) const { return data_[i]; }
    VLMK_INLINE explicit operator bool() const { return data_ != nullptr; }

  private:
    T* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace vlmk
