// Where a call runs: on the CPU's own kernels, on the emulator, or on a GPU.
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "gpu/emulated.h"
#include "gpu/launch.h"
#include "python/tensor.h"

namespace vlmk::python {

enum class Access { read, write };

class Execution {
  public:
    // `backend` is "cpu", "emulator" or "cuda". `threads` serves the first two, `stream` (a pointer's number) the last.
    Execution(const std::string& backend, int threads, uint64_t stream);

    bool on_cpu() const { return backend_ == Backend::cpu; }
    int threads() const { return threads_; }

    // Borrows a tensor and checks that it is where the call runs: all on the CPU, or all on one GPU.
    TensorView view(pybind11::handle tensor, const char* argument, Access access = Access::read);

    // Of the GPU; of the emulator's, by its settings.
    gpu::GpuLimits limits() const;

    // Without the GIL. Kernels on a GPU are only queued.
    void run(const gpu::LaunchPlan& plan) const;

  private:
    enum class Backend { cpu, emulator, cuda };

    Backend backend_;
    int threads_;
    void* stream_;
    int device_ = kHost;
    bool first_ = true;
    std::vector<emulator::Region> regions_;
};

}  // namespace vlmk::python
