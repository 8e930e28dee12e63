// The part of the DLPack 1.x C interface (https://dmlc.github.io/dlpack) that borrowing a tensor needs, laid out as
// that specification says.
#pragma once
#include <cstdint>

namespace vlmk::python::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
    int32_t type;
    int32_t id;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;
    uint64_t byte_offset;
};

struct Version {
    uint32_t major;
    uint32_t minor;
};

struct ExchangeHeader {
    Version version;
    ExchangeHeader* previous;
};

// Members that are not used here keep their place as plain pointers.
struct ExchangeApi {
    ExchangeHeader header;
    void* managed_tensor_allocator;
    void* managed_tensor_from_py_object_no_sync;
    void* managed_tensor_to_py_object_no_sync;
    int (*dltensor_from_py_object_no_sync)(void* py_object, Tensor* out);
    int (*current_work_stream)(DeviceType device_type, int32_t device_id, void** out);
};

}  // namespace vlmk::python::dlpack
