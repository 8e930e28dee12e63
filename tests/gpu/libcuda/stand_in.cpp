// A stand-in for libcuda.so.1: the driver functions that the launch layer uses, on CPU memory, with launches handed to
// a callback (the emulator). It is as strict as the driver where that is known: contexts, capture rules, opted-in
// shared memory, architectures of a fatbin; and it fails on request. Built by the tests against NVIDIA's cuda.h, which
// checks every declaration.
#include <cuda.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "gpu/cuda_api.h"

namespace {

// The launch layer declares the functions itself: same number of arguments, of the same sizes, or this does not
// compile.
template <class Ours, class Theirs>
struct SameCall : std::false_type {};
template <class R, class... A, class S, class... B>
struct SameCall<R (*)(A...), S (*)(B...)> {
    static constexpr bool value = [] {
        if constexpr (sizeof...(A) == sizeof...(B))
            return sizeof(R) == sizeof(S) &&
                   ((sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B>) && ...);
        else
            return false;
    }();
};
#define CHECK(member, symbol, arguments) \
    static_assert(SameCall<decltype(vlmk::gpu::cuda::Api::member), decltype(&symbol)>::value, #symbol);
VLMK_CUDA_FUNCTIONS(CHECK)
#undef CHECK
static_assert(vlmk::gpu::cuda::kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, "");
static_assert(vlmk::gpu::cuda::kMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, "");
static_assert(vlmk::gpu::cuda::kMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, "");
static_assert(vlmk::gpu::cuda::kPageableMemory == CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, "");
static_assert(vlmk::gpu::cuda::kMaxSharedOptIn == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, "");
static_assert(vlmk::gpu::cuda::kMaxDynamicShared == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, "");
static_assert(vlmk::gpu::cuda::kCaptureRelaxed == CU_STREAM_CAPTURE_MODE_RELAXED, "");

// Runs a kernel and waits; returns a CUresult.
using LaunchCallback = int (*)(const char* ptx_path, const char* kernel, const unsigned* grid, const unsigned* block,
                               unsigned shared_bytes, const void* parameters, size_t parameter_bytes);

struct Fault {
    CUresult code;
    int times;  // that it is still to happen; negative: for ever
};

struct FakeContext {
    int device;
};
struct FakeModule {
    FakeContext* context;
    std::string ptx_path;
};
struct FakeFunction {
    FakeModule* module;
    std::string name;
    unsigned dynamic_shared = 48 * 1024;
};
struct Launch {
    const FakeFunction* function;
    unsigned grid[3], block[3], shared_bytes;
    std::vector<char> parameters;
};

struct State {
    std::recursive_mutex mutex;
    bool initialised = false;
    int devices = 1, driver_version = 13000, capability = 80, pageable = 1;
    bool capturing = false;
    CUresult sticky = CUDA_SUCCESS;
    std::map<std::string, Fault> faults;
    std::map<std::string, int> calls;
    std::string image_folder;
    LaunchCallback callback = nullptr;
    std::map<int, FakeContext> contexts;
    CUstream last_stream = nullptr;
    std::vector<Launch> graph;
} state;

thread_local std::vector<CUcontext> context_stack;
thread_local CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

bool is_sticky(CUresult code) { return code >= 700 && code < 720 && code != CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES; }

enum class Needs { nothing, init, working_device };

// What every call does first: count, fail as told, and fail for ever after a fault of the device.
CUresult enter(const char* function, Needs needs) {
    ++state.calls[function];
    const auto fault = state.faults.find(function);
    if (fault != state.faults.end() && fault->second.times != 0) {
        if (fault->second.times > 0) --fault->second.times;
        if (is_sticky(fault->second.code)) state.sticky = fault->second.code;
        return fault->second.code;
    }
    if (needs != Needs::nothing && !state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    return needs == Needs::working_device ? state.sticky : CUDA_SUCCESS;
}

CUresult unsafe_in_capture() {
    if (!state.capturing || capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
    state.capturing = false;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

#define ENTER(needs)                                               \
    const std::lock_guard<std::recursive_mutex> lock(state.mutex); \
    if (const CUresult failed = enter(__func__, needs)) return failed
#define NEEDS_CONTEXT \
    if (context_stack.empty() || context_stack.back() == nullptr) return CUDA_ERROR_INVALID_CONTEXT
#define UNSAFE_IN_CAPTURE \
    if (const CUresult failed = unsafe_in_capture()) return failed

struct FatbinHeader {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t payload_bytes;
};
struct FatbinEntry {
    uint16_t kind, version;
    uint32_t header_bytes;
    uint64_t payload_bytes;
    char unused[12];
    uint32_t architecture;
};

bool runs_here(const char* fatbin, const FatbinHeader& header) {
    for (uint64_t at = 0; at < header.payload_bytes;) {
        FatbinEntry entry;
        std::memcpy(&entry, fatbin + header.header_bytes + at, sizeof entry);
        const int here = state.capability, other = static_cast<int>(entry.architecture);
        if (entry.kind == 1 ? other <= here : other / 10 == here / 10 && other <= here) return true;
        at += entry.header_bytes + entry.payload_bytes;
    }
    return false;
}

// The .ptx beside the file that holds these bytes: a fatbin's own PTX is compressed.
std::string ptx_beside(const char* bytes, size_t size) {
    for (const auto& file : std::filesystem::recursive_directory_iterator(state.image_folder)) {
        if (file.path().extension() != ".fatbin" || file.file_size() != size) continue;
        std::ifstream stream(file.path(), std::ios::binary);
        const std::string content(std::istreambuf_iterator<char>(stream), {});
        if (std::memcmp(content.data(), bytes, size) == 0)
            return std::filesystem::path(file.path()).replace_extension(".ptx").string();
    }
    return "";
}

CUresult run(const Launch& launch) {
    if (state.callback == nullptr) return CUDA_SUCCESS;
    const int code =
        state.callback(launch.function->module->ptx_path.c_str(), launch.function->name.c_str(), launch.grid,
                       launch.block, launch.shared_bytes, launch.parameters.data(), launch.parameters.size());
    if (is_sticky(static_cast<CUresult>(code))) state.sticky = static_cast<CUresult>(code);
    return CUDA_SUCCESS;  // like a GPU, which tells later
}

}  // namespace

extern "C" {

// --- how tests steer it ---

void standin_reset(const char* image_folder, LaunchCallback callback) {
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);
    state.devices = 1, state.driver_version = 13000, state.capability = 80, state.pageable = 1;
    state.capturing = false;
    state.sticky = CUDA_SUCCESS;
    state.faults.clear();
    state.calls.clear();
    state.graph.clear();
    state.image_folder = image_folder;
    state.callback = callback;
}
void standin_fail(const char* function, int code, int times) {
    state.faults[function] = {static_cast<CUresult>(code), times};
}
void standin_set(const char* what, int value) {
    const std::map<std::string, int*> known = {{"devices", &state.devices},
                                               {"driver_version", &state.driver_version},
                                               {"capability", &state.capability},
                                               {"pageable", &state.pageable}};
    *known.at(what) = value;
}
int standin_calls(const char* function) { return state.calls[function]; }
void* standin_last_stream() { return state.last_stream; }
void standin_begin_capture() { state.capturing = true; }
int standin_end_capture() {
    const bool whole = state.capturing;
    state.capturing = false;
    return whole ? static_cast<int>(state.graph.size()) : -1;
}
void standin_replay() {
    for (const Launch& launch : state.graph) run(launch);
}
int standin_context_depth() { return static_cast<int>(context_stack.size()); }

// --- the driver ---

CUresult cuInit(unsigned) {
    ENTER(Needs::nothing);
    if (state.devices == 0) return CUDA_ERROR_NO_DEVICE;
    state.initialised = true;
    return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* version) {
    ENTER(Needs::nothing);
    *version = state.driver_version;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
    ENTER(Needs::working_device);
    *count = state.devices;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    ENTER(Needs::working_device);
    if (ordinal < 0 || ordinal >= state.devices) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int length, CUdevice) {
    ENTER(Needs::working_device);
    std::strncpy(name, "Stand-in GPU", static_cast<size_t>(length));
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    ENTER(Needs::working_device);
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = state.capability / 10;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = state.capability % 10;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
            *value = 108;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
            *value = 163 * 1024;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS:
            *value = state.pageable;
            return CUDA_SUCCESS;
        default:
            return CUDA_ERROR_INVALID_VALUE;
    }
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    ENTER(Needs::working_device);
    state.contexts[device].device = device;
    *context = reinterpret_cast<CUcontext>(&state.contexts[device]);
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) {
    ENTER(Needs::init);
    *context = context_stack.empty() ? nullptr : context_stack.back();
    return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext context) {
    ENTER(Needs::init);
    context_stack.push_back(context);
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext* context) {
    ENTER(Needs::init);
    NEEDS_CONTEXT;
    *context = context_stack.back();
    context_stack.pop_back();
    return CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    ENTER(Needs::working_device);
    NEEDS_CONTEXT;
    UNSAFE_IN_CAPTURE;
    FatbinHeader header;
    std::memcpy(&header, image, sizeof header);
    if (header.magic != 0xBA55ED50u) return CUDA_ERROR_INVALID_IMAGE;
    if (!runs_here(static_cast<const char*>(image), header)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    const std::string path = ptx_beside(static_cast<const char*>(image), header.header_bytes + header.payload_bytes);
    if (path.empty()) return CUDA_ERROR_FILE_NOT_FOUND;
    *module = reinterpret_cast<CUmodule>(
        new FakeModule{reinterpret_cast<FakeContext*>(context_stack.back()), path});  // lives as long as the process
    return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    ENTER(Needs::working_device);
    NEEDS_CONTEXT;
    UNSAFE_IN_CAPTURE;
    auto* from = reinterpret_cast<FakeModule*>(module);
    std::ifstream stream(from->ptx_path);
    const std::string text(std::istreambuf_iterator<char>(stream), {});
    if (text.find(std::string(".entry ") + name + "(") == std::string::npos) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(new FakeFunction{from, name});
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    ENTER(Needs::working_device);
    UNSAFE_IN_CAPTURE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value > 163 * 1024)
        return CUDA_ERROR_INVALID_VALUE;
    reinterpret_cast<FakeFunction*>(function)->dynamic_shared = static_cast<unsigned>(value);
    return CUDA_SUCCESS;
}
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
    ENTER(Needs::working_device);
    std::swap(*mode, capture_mode);
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                        unsigned bz, unsigned shared_bytes, CUstream stream, void** parameters, void** extra) {
    ENTER(Needs::working_device);
    NEEDS_CONTEXT;
    auto* f = reinterpret_cast<FakeFunction*>(function);
    if (reinterpret_cast<CUcontext>(f->module->context) != context_stack.back()) return CUDA_ERROR_INVALID_CONTEXT;
    if (gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || bx * by * bz == 0 || bx * by * bz > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    if (shared_bytes > f->dynamic_shared || parameters != nullptr || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER ||
        extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE || extra[4] != CU_LAUNCH_PARAM_END)
        return CUDA_ERROR_INVALID_VALUE;
    const auto* bytes = static_cast<const char*>(extra[1]);
    Launch launch{f, {gx, gy, gz}, {bx, by, bz}, shared_bytes, {bytes, bytes + *static_cast<size_t*>(extra[3])}};
    state.last_stream = stream;
    if (state.capturing) {
        state.graph.push_back(std::move(launch));
        return CUDA_SUCCESS;
    }
    return run(launch);
}
CUresult cuStreamSynchronize(CUstream) {
    ENTER(Needs::working_device);
    NEEDS_CONTEXT;
    UNSAFE_IN_CAPTURE;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char** text) {
    static const std::map<int, const char*> names = {{2, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                     {100, "CUDA_ERROR_NO_DEVICE"},
                                                     {101, "CUDA_ERROR_INVALID_DEVICE"},
                                                     {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
                                                     {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
                                                     {500, "CUDA_ERROR_NOT_FOUND"},
                                                     {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                                                     {719, "CUDA_ERROR_LAUNCH_FAILED"},
                                                     {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
    const auto found = names.find(error);
    *text = found == names.end() ? "CUDA_ERROR_OTHER" : found->second;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "as the stand-in was told";
    return CUDA_SUCCESS;
}

}  // extern "C"
