#include "gpu/driver_error.h"

namespace vlmk::gpu {
namespace {

struct Advice {
    int code;  // CUresult
    const char* text;
};

constexpr const char* kOldDriver =
    "the driver is too old for kernels built with CUDA 13: install driver 580 or newer (nvidia-smi shows the one there "
    "is)";
constexpr const char* kMismatch = "the installed files do not belong together: reinstall vlmkernels";
constexpr const char* kCapture =
    "a CUDA graph is being captured: run the operator once before the capture, so that its kernels are loaded";
// After these every call of the process on this GPU fails, whoever makes it.
constexpr const char* kSticky =
    "a kernel that ran earlier on this GPU, of this package or of another, faulted, and the GPU is lost to this "
    "process: restart it; "
    "CUDA_LAUNCH_BLOCKING=1 or compute-sanitizer finds the kernel";

constexpr Advice kAdvice[] = {
    {2, "the GPU is out of memory: free tensors, or call torch.cuda.empty_cache() for what torch keeps in reserve"},
    {3, "CUDA does not work in a process forked from one that used it: start workers with the method \"spawn\""},
    {34, "this libcuda.so.1 is the toolkit's stand-in for linking: put the driver's own first on the library path"},
    {46, "another process holds the GPU exclusively, or it failed: see nvidia-smi"},
    {100, "no GPU is visible: see nvidia-smi and the variable CUDA_VISIBLE_DEVICES"},
    {101, "there is no such GPU: see CUDA_VISIBLE_DEVICES"},
    {200, kMismatch},
    {209,
     "the package has no machine code for this GPU and no PTX it can compile: a GPU of compute capability 8.0 or newer "
     "is needed"},
    {214, kSticky},
    {218, kMismatch},
    {222, kOldDriver},
    {300, kMismatch},
    {301, kMismatch},
    {500, kMismatch},
    {700, kSticky},
    {701, "the kernel needs more registers or shared memory than this GPU has: please report it with the GPU's name"},
    {702, kSticky},
    {710, kSticky},
    {714, kSticky},
    {715, kSticky},
    {716, kSticky},
    {717, kSticky},
    {718, kSticky},
    {719, kSticky},
    {802, "the machine's fabric manager is still starting: wait, then see nvidia-smi"},
    {803, "the driver's library and its kernel module are of different versions: reboot after a driver update"},
    {804, "the forward-compatibility library does not support this GPU: use the driver's own libcuda.so.1"},
    {900, kCapture},
    {901, kCapture},
    {906, kCapture},
    {907, kCapture},
    {908, kCapture},
    {999, "the driver gives no reason: see nvidia-smi and the kernel's log"},
};

}  // namespace

std::string remedy(int code) {
    for (const Advice& advice : kAdvice)
        if (advice.code == code) return advice.text;
    return "";
}

}  // namespace vlmk::gpu
