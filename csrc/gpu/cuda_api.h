// The part of the CUDA driver API that launching needs, declared as NVIDIA documents it, so that the build needs no
// toolkit headers. Functions are found in the driver's library at run time.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vlmk::gpu::cuda {

using Result = int;  // CUresult
using Device = int;
using Context = void*;
using Module = void*;
using Function = void*;
using Stream = void*;

constexpr Result kSuccess = 0;

// CUdevice_attribute
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76, kPageableMemory = 88, kMaxSharedOptIn = 97;
// CUfunction_attribute
constexpr int kMaxDynamicShared = 8;
// CUstreamCaptureMode
constexpr int kCaptureRelaxed = 2;
// Tags of cuLaunchKernel's `extra`
inline void* const kParameterBuffer = reinterpret_cast<void*>(1);
inline void* const kParameterBytes = reinterpret_cast<void*>(2);
inline void* const kParameterEnd = nullptr;

// F(member of Api, exported symbol, arguments)
#define VLMK_CUDA_FUNCTIONS(F)                                                                                   \
    F(init, cuInit, (unsigned flags))                                                                            \
    F(driver_version, cuDriverGetVersion, (int* version))                                                        \
    F(device_count, cuDeviceGetCount, (int* count))                                                              \
    F(device_get, cuDeviceGet, (Device * device, int ordinal))                                                   \
    F(device_name, cuDeviceGetName, (char* name, int length, Device device))                                     \
    F(device_attribute, cuDeviceGetAttribute, (int* value, int attribute, Device device))                        \
    F(retain_primary, cuDevicePrimaryCtxRetain, (Context * context, Device device))                              \
    F(current_context, cuCtxGetCurrent, (Context * context))                                                     \
    F(push_context, cuCtxPushCurrent_v2, (Context context))                                                      \
    F(pop_context, cuCtxPopCurrent_v2, (Context * context))                                                      \
    F(load_module, cuModuleLoadData, (Module * module, const void* image))                                       \
    F(get_function, cuModuleGetFunction, (Function * function, Module module, const char* name))                 \
    F(set_attribute, cuFuncSetAttribute, (Function function, int attribute, int value))                          \
    F(exchange_capture_mode, cuThreadExchangeStreamCaptureMode, (int* mode))                                     \
    F(launch_kernel, cuLaunchKernel,                                                                             \
      (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
       unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters, void** extra))                 \
    F(synchronize, cuStreamSynchronize, (Stream stream))                                                         \
    F(error_name, cuGetErrorName, (Result result, const char** text))                                            \
    F(error_text, cuGetErrorString, (Result result, const char** text))

struct Api {
#define VLMK_CUDA_MEMBER(member, symbol, arguments) Result(*member) arguments = nullptr;
    VLMK_CUDA_FUNCTIONS(VLMK_CUDA_MEMBER)
#undef VLMK_CUDA_MEMBER
};

}  // namespace vlmk::gpu::cuda
