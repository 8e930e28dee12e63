#include "gpu/driver.h"

#include <dlfcn.h>

#include <cstdlib>

#include "gpu/images.h"

namespace vlmk::gpu {
namespace {

constexpr int kBuiltWith =
    13000;  // CUDA 13.0: machine code of one major version runs on drivers of the same or a later one

cuda::Api open_library() {
    const char* chosen = std::getenv("VLMKERNELS_LIBCUDA");
    const std::string library = chosen != nullptr && *chosen != 0 ? chosen : "libcuda.so.1";
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* why = dlerror();
        throw DriverError("no NVIDIA driver: " + std::string(why != nullptr ? why : library));
    }
    cuda::Api api;
    const auto find = [&](const char* symbol) {
        void* found = dlsym(handle, symbol);
        if (found == nullptr) throw DriverError(library + " has no function " + symbol + ": " + remedy(222));
        return found;
    };
#define VLMK_CUDA_FIND(member, symbol, arguments) api.member = reinterpret_cast<decltype(api.member)>(find(#symbol));
    VLMK_CUDA_FUNCTIONS(VLMK_CUDA_FIND)
#undef VLMK_CUDA_FIND
    return api;
}

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

// Makes a device's primary context current for a scope, where another one or none is.
class CurrentContext {
  public:
    CurrentContext(const Driver& driver, cuda::Context context) : driver_(driver) {
        cuda::Context current = nullptr;
        driver.check(driver.api_.current_context(&current), "reading the current CUDA context");
        if (current == context) return;
        driver.check(driver.api_.push_context(context), "making the CUDA context current");
        pushed_ = true;
    }
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;
    ~CurrentContext() {
        cuda::Context mine = nullptr;
        if (pushed_) driver_.api_.pop_context(&mine);
    }

  private:
    const Driver& driver_;
    bool pushed_ = false;
};

Driver& Driver::instance() {
    static std::mutex opening;
    static Driver* driver = nullptr;  // never destroyed: at exit the driver may already be gone
    const std::lock_guard<std::mutex> lock(opening);
    if (driver == nullptr) driver = new Driver();
    return *driver;
}

Driver::Driver() : api_(open_library()) {
    check(api_.driver_version(&version_), "reading the driver's version");
    check(api_.init(0), "initialising CUDA");
    int count = 0;
    check(api_.device_count(&count), "counting GPUs");
    devices_.resize(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i)
        check(api_.device_get(&devices_[static_cast<size_t>(i)].handle, i), "finding GPU " + std::to_string(i));
}

void Driver::check(cuda::Result result, const std::string& action) const {
    if (result == cuda::kSuccess) return;
    const char *code = nullptr, *text = nullptr;
    api_.error_name(result, &code);
    api_.error_text(result, &text);
    std::string message = action + " failed: " + (code != nullptr ? code : "unknown CUDA error") + " (" +
                          std::to_string(result) + (text != nullptr ? std::string(", ") + text : "") + ")";
    // Several codes say no more than this when the driver is older than the kernels.
    const bool old = version_ != 0 && version_ < kBuiltWith && (result == 200 || result == 209 || result == 218);
    const std::string advice = remedy(old ? 222 : result);
    if (!advice.empty()) message += "; " + advice;
    if (old || result == 222) message += "; this driver supports CUDA " + version_text(version_);
    throw DriverError(message);
}

DeviceInfo Driver::device_info(int index) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (index < 0 || index >= device_count())
        throw DriverError("there is no GPU " + std::to_string(index) + "; " + remedy(101));
    const cuda::Device handle = devices_[static_cast<size_t>(index)].handle;
    const auto attribute = [&](int which) {
        int value = 0;
        check(api_.device_attribute(&value, which, handle), "reading an attribute of GPU " + std::to_string(index));
        return value;
    };
    char name[256] = {};
    check(api_.device_name(name, sizeof name - 1, handle), "reading the name of GPU " + std::to_string(index));
    return {name,
            attribute(cuda::kMajor),
            attribute(cuda::kMinor),
            attribute(cuda::kMultiprocessors),
            attribute(cuda::kMaxSharedOptIn),
            attribute(cuda::kPageableMemory) != 0};
}

Driver::Device& Driver::device(int index) {
    if (index < 0 || index >= device_count())
        throw DriverError("there is no GPU " + std::to_string(index) + "; " + remedy(101));
    Device& found = devices_[static_cast<size_t>(index)];
    if (found.context == nullptr)
        check(api_.retain_primary(&found.context, found.handle), "opening GPU " + std::to_string(index));
    return found;
}

void Driver::load(Device& device, const std::string& image) {
    if (device.modules.count(image) != 0) return;
    const std::string bytes = read_image(image, ".fatbin");
    check(api_.load_module(&device.modules[image], bytes.data()), "loading the kernels of " + image);
}

Driver::Kernel& Driver::kernel(Device& device, const LaunchPlan& plan) {
    const std::string key = plan.image + ":" + plan.kernel;
    const auto known = device.kernels.find(key);
    if (known != device.kernels.end() && known->second.shared_bytes >= plan.shared_bytes) return known->second;

    // Loading allocates, which a thread that captures a CUDA graph may do only in relaxed mode. Nothing here belongs
    // into the graph.
    int mode = cuda::kCaptureRelaxed;
    check(api_.exchange_capture_mode(&mode), "suspending the rules of graph capture");
    struct Restore {
        const cuda::Api& api;
        int& mode;
        ~Restore() { api.exchange_capture_mode(&mode); }
    } const restore{api_, mode};

    Kernel fresh;
    if (known != device.kernels.end()) {
        fresh = known->second;
    } else {
        try {
            load(device, plan.image);
        } catch (...) {
            device.modules.erase(plan.image);
            throw;
        }
        check(api_.get_function(&fresh.function, device.modules[plan.image], plan.kernel.c_str()),
              "finding the kernel " + plan.kernel);
    }
    if (plan.shared_bytes > fresh.shared_bytes) {
        check(api_.set_attribute(fresh.function, cuda::kMaxDynamicShared, static_cast<int>(plan.shared_bytes)),
              "giving " + plan.kernel + " " + std::to_string(plan.shared_bytes) + " bytes of shared memory");
        fresh.shared_bytes = plan.shared_bytes;
    }
    return device.kernels[key] = fresh;
}

void Driver::launch(const LaunchPlan& plan, int index, void* stream) {
    gpu::check(plan);
    const std::lock_guard<std::mutex> lock(mutex_);
    Device& on = device(index);
    const CurrentContext current(*this, on.context);
    const Kernel& found = kernel(on, plan);
    size_t bytes = plan.parameters.size();
    void* extra[] = {cuda::kParameterBuffer, const_cast<std::byte*>(plan.parameters.data()), cuda::kParameterBytes,
                     &bytes, cuda::kParameterEnd};
    check(api_.launch_kernel(found.function, plan.grid.x, plan.grid.y, plan.grid.z, plan.block.x, plan.block.y,
                             plan.block.z, plan.shared_bytes, stream, nullptr, extra),
          "launching " + plan.kernel);
}

void Driver::synchronize(int index, void* stream) {
    cuda::Context context;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        context = device(index).context;
    }
    const CurrentContext current(*this, context);
    check(api_.synchronize(stream), "waiting for GPU " + std::to_string(index));
}

}  // namespace vlmk::gpu
