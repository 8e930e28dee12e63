// Borrowed views of torch tensors, without libtorch.
#pragma once
#include <pybind11/pybind11.h>

#include <initializer_list>

#include "core/dtype.h"

namespace vlmk::python {

constexpr int kMaxDims = 6;
constexpr int kHost = -1;

// Pointer, dtype, shape and strides (in elements) of a tensor; valid while the Python object lives.
struct TensorView {
    void* data = nullptr;
    DType dtype = DType::other;
    int device = kHost;  // a CUDA device's number, or kHost
    int ndim = 0;
    int64_t shape[kMaxDims] = {};
    int64_t stride[kMaxDims] = {};

    explicit operator bool() const { return ndim > 0 || data != nullptr; }
    int64_t elements() const;
    bool contiguous() const;
};

// Reads a torch.Tensor in CPU memory; None gives an empty view. TypeError or ValueError name the argument.
TensorView view(pybind11::handle tensor, const char* argument);

// The same for a tensor on the CPU or a CUDA device.
TensorView view_anywhere(pybind11::handle tensor, const char* argument);

// The last line of defence behind the Python checks: throws ValueError unless the view has this shape and dtype.
void expect(const TensorView& tensor, const char* argument, DType dtype, std::initializer_list<int64_t> shape);

}  // namespace vlmk::python
