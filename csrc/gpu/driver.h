// Runs launch plans with the CUDA driver, whose library is opened at run time: the module has no link to CUDA.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gpu/cuda_api.h"
#include "gpu/driver_error.h"
#include "gpu/launch.h"

namespace vlmk::gpu {

struct DeviceInfo {
    std::string name;
    int major = 0, minor = 0;  // compute capability
    int multiprocessors = 0;
    int max_shared_bytes = 0;      // a block can have, opted in
    bool pageable_memory = false;  // kernels may use plain CPU memory
};

class Driver {
  public:
    // Opened by the first call; DriverError says why there is none. A failure is not remembered. VLMKERNELS_LIBCUDA
    // names another library than libcuda.so.1.
    static Driver& instance();

    int version() const { return version_; }  // 1000 * major + 10 * minor of the newest CUDA it supports
    int device_count() const { return static_cast<int>(devices_.size()); }
    DeviceInfo device_info(int device);

    // Queues the kernel on the stream (null: the default one) of the device and returns. The first launch of a kernel
    // loads it; later ones only look it up, and may be captured in a CUDA graph.
    void launch(const LaunchPlan& plan, int device, void* stream);

    // Waits until the stream's work is done, and reports what went wrong in it.
    void synchronize(int device, void* stream);

  private:
    struct Kernel {
        cuda::Function function = nullptr;
        uint32_t shared_bytes = 48 * 1024;  // what every function may use without opting in
    };
    struct Device {
        cuda::Device handle = 0;
        cuda::Context context = nullptr;  // the primary one, torch's too; kept until the process ends
        std::map<std::string, cuda::Module> modules;
        std::map<std::string, Kernel> kernels;
    };

    Driver();
    Device& device(int index);
    Kernel& kernel(Device& device, const LaunchPlan& plan);
    void load(Device& device, const std::string& image);
    void check(cuda::Result result, const std::string& action) const;

    cuda::Api api_;
    int version_ = 0;
    std::mutex mutex_;  // of devices_
    std::vector<Device> devices_;

    friend class CurrentContext;
};

}  // namespace vlmk::gpu
