#include "python/tensor.h"

#include <cstring>
#include <string>

#include "core/error.h"
#include "python/dlpack.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

DType dtype_of(const dlpack::DataType& type) {
    if (type.lanes != 1) return DType::other;
    switch (type.code) {
        case dlpack::kFloat:
            return type.bits == 32   ? DType::f32
                   : type.bits == 16 ? DType::f16
                   : type.bits == 64 ? DType::f64
                                     : DType::other;
        case dlpack::kBfloat:
            return type.bits == 16 ? DType::bf16 : DType::other;
        case dlpack::kUInt:
            return type.bits == 8 ? DType::u8 : DType::other;
        case dlpack::kBool:
            return type.bits == 8 ? DType::boolean : DType::other;
        case dlpack::kInt:
            return type.bits == 32 ? DType::i32 : type.bits == 64 ? DType::i64 : DType::other;
        default:
            return DType::other;
    }
}

// torch's C table, or null with a torch that has none (before 2.10).
const dlpack::ExchangeApi* exchange_api() {
    static const dlpack::ExchangeApi* api = []() -> const dlpack::ExchangeApi* {
        py::object type = py::module_::import("torch").attr("Tensor");
        if (!py::hasattr(type, "__dlpack_c_exchange_api__")) return nullptr;
        py::object capsule = type.attr("__dlpack_c_exchange_api__");
        auto* found =
            static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        if (found == nullptr) {
            PyErr_Clear();
            return nullptr;
        }
        return found->header.version.major == 1 && found->dltensor_from_py_object_no_sync != nullptr ? found : nullptr;
    }();
    return api;
}

TensorView from_table(py::handle tensor, const char* argument) {
    dlpack::Tensor borrowed;
    if (exchange_api()->dltensor_from_py_object_no_sync(tensor.ptr(), &borrowed) != 0) throw py::error_already_set();
    require(borrowed.device.type == dlpack::kCpu || borrowed.device.type == dlpack::kCuda, argument,
            " is neither on the CPU nor on a CUDA device");
    require(borrowed.ndim <= kMaxDims, argument, " has too many dimensions");
    TensorView v;
    v.data = static_cast<char*>(borrowed.data) + borrowed.byte_offset;
    v.dtype = dtype_of(borrowed.dtype);
    v.device = borrowed.device.type == dlpack::kCuda ? borrowed.device.id : kHost;
    v.ndim = borrowed.ndim;
    for (int i = 0; i < v.ndim; ++i) v.shape[i] = borrowed.shape[i];
    if (borrowed.strides != nullptr) {
        for (int i = 0; i < v.ndim; ++i) v.stride[i] = borrowed.strides[i];
    } else {
        for (int64_t i = v.ndim - 1, next = 1; i >= 0; next *= v.shape[i--]) v.stride[i] = next;
    }
    return v;
}

// Any torch: plain attributes.
TensorView from_attributes(py::handle tensor, const char* argument) {
    static const py::object torch = py::module_::import("torch");
    static const std::pair<py::object, DType> known[] = {
        {torch.attr("float32"), DType::f32}, {torch.attr("float16"), DType::f16}, {torch.attr("bfloat16"), DType::bf16},
        {torch.attr("float64"), DType::f64}, {torch.attr("uint8"), DType::u8},    {torch.attr("bool"), DType::boolean},
        {torch.attr("int32"), DType::i32},   {torch.attr("int64"), DType::i64}};
    const py::object device = tensor.attr("device");
    const std::string kind = py::str(device.attr("type"));
    require(kind == "cpu" || kind == "cuda", argument, " is neither on the CPU nor on a CUDA device");
    TensorView v;
    v.device = kind == "cuda" ? device.attr("index").cast<int>() : kHost;
    const py::object dtype = tensor.attr("dtype");
    for (const auto& [object, value] : known)
        if (dtype.is(object)) v.dtype = value;
    const py::tuple shape = py::tuple(tensor.attr("shape")), stride = py::tuple(tensor.attr("stride")());
    require(shape.size() <= kMaxDims, argument, " has too many dimensions");
    v.ndim = static_cast<int>(shape.size());
    for (int i = 0; i < v.ndim; ++i) {
        v.shape[i] = shape[i].cast<int64_t>();
        v.stride[i] = stride[i].cast<int64_t>();
    }
    v.data = reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
    return v;
}

std::string shape_text(const int64_t* shape, int64_t ndim) {
    std::string text = "(";
    for (int64_t i = 0; i < ndim; ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

}  // namespace

int64_t TensorView::elements() const {
    int64_t count = 1;
    for (int i = 0; i < ndim; ++i) count *= shape[i];
    return count;
}

bool TensorView::contiguous() const {
    for (int64_t i = ndim - 1, next = 1; i >= 0; next *= shape[i--])
        if (shape[i] != 1 && stride[i] != next) return elements() == 0;
    return true;
}

TensorView view_anywhere(py::handle tensor, const char* argument) {
    if (tensor.is_none()) return {};
    return exchange_api() != nullptr ? from_table(tensor, argument) : from_attributes(tensor, argument);
}

TensorView view(py::handle tensor, const char* argument) {
    const TensorView v = view_anywhere(tensor, argument);
    require(v.device == kHost, argument, " is not on the CPU");
    return v;
}

void expect(const TensorView& tensor, const char* argument, DType dtype, std::initializer_list<int64_t> shape) {
    bool same = tensor.ndim == static_cast<int>(shape.size()) && tensor.dtype == dtype;
    for (int i = 0; same && i < tensor.ndim; ++i) same = tensor.shape[i] == shape.begin()[i];
    if (!same)
        throw std::invalid_argument(std::string(argument) + " must be " + name(dtype) + " " +
                                    shape_text(shape.begin(), static_cast<int64_t>(shape.size())) + ", got " +
                                    name(tensor.dtype) + " " + shape_text(tensor.shape, tensor.ndim));
}

}  // namespace vlmk::python
