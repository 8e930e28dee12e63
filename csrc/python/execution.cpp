#include "python/execution.h"

#include <algorithm>

#include "core/error.h"
#include "gpu/driver.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

size_t element_bytes(DType dtype) {
    switch (dtype) {
        case DType::f64:
        case DType::i64:
            return 8;
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::f16:
        case DType::bf16:
            return 2;
        default:
            return 1;
    }
}

// From the first to the last element of a tensor that has any; strides of torch tensors are not negative.
emulator::Region region_of(const TensorView& t, const char* argument, Access access) {
    int64_t last = 0;
    for (int i = 0; i < t.ndim; ++i) last += (t.shape[i] - 1) * t.stride[i];
    const size_t bytes = static_cast<size_t>(last + 1) * element_bytes(t.dtype);
    return {reinterpret_cast<uintptr_t>(t.data), bytes, argument, access == Access::write};
}

}  // namespace

Execution::Execution(const std::string& backend, int threads, uint64_t stream)
    : threads_(std::max(threads, 1)), stream_(reinterpret_cast<void*>(stream)) {
    if (backend == "cpu")
        backend_ = Backend::cpu;
    else if (backend == "emulator")
        backend_ = Backend::emulator;
    else if (backend == "cuda")
        backend_ = Backend::cuda;
    else
        throw std::invalid_argument("backend must be cpu, emulator or cuda, got " + backend);
}

TensorView Execution::view(py::handle tensor, const char* argument, Access access) {
    const TensorView t = view_anywhere(tensor, argument);
    if (tensor.is_none()) return t;
    if (first_) device_ = t.device;
    first_ = false;
    require(t.device == device_, argument, " is on another device than the first tensor");
    require(t.device == kHost || backend_ == Backend::cuda, argument, " is not on the CPU");
    if (backend_ == Backend::emulator && t.elements() > 0) regions_.push_back(region_of(t, argument, access));
    return t;
}

gpu::GpuLimits Execution::limits() const {
    if (backend_ != Backend::cuda || device_ == kHost) return gpu::emulation().gpu;
    const gpu::DeviceInfo info = gpu::Driver::instance().device_info(device_);
    return {info.max_shared_bytes, info.multiprocessors};
}

void Execution::run(const gpu::LaunchPlan& plan) const {
    if (backend_ == Backend::emulator) return gpu::run_emulated(plan, regions_, threads_);
    gpu::Driver& driver = gpu::Driver::instance();
    if (device_ != kHost) return driver.launch(plan, device_, stream_);
    // A GPU that reads the CPU's own pages can work on CPU tensors, whose readers expect finished results.
    constexpr int kFirst = 0;
    if (!driver.device_info(kFirst).pageable_memory)
        throw std::invalid_argument(
            "the tensors are on the CPU and this GPU does not reach its memory: move them with .cuda()");
    driver.launch(plan, kFirst, stream_);
    driver.synchronize(kFirst, stream_);
}

}  // namespace vlmk::python
