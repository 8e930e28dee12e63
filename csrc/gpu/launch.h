// A launch is data: what to run, on how many threads, with which parameters. Host code of an operation makes it from a
// problem; the driver or the emulator runs it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace vlmk::gpu {

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
};

// What plans may depend on of the GPU that runs them.
struct GpuLimits {
    int shared_bytes;  // that a block can have; a multiprocessor has 1 KB more
    int multiprocessors;
};

struct LaunchPlan {
    std::string image;   // <operation>/<name> of the .cu file
    std::string kernel;  // an extern "C" function in it
    Dim3 grid, block;
    uint32_t shared_bytes = 0;  // dynamic
    std::vector<std::byte> parameters;
};

// The parameter bytes of a kernel that takes one struct.
template <class Struct>
std::vector<std::byte> parameter_bytes(const Struct& parameters) {
    static_assert(std::is_trivially_copyable_v<Struct>, "parameters are copied byte by byte");
    std::vector<std::byte> bytes(sizeof(Struct));
    std::memcpy(bytes.data(), &parameters, sizeof(Struct));
    return bytes;
}

// A grid of `blocks` blocks. Only x may exceed 65,535, so plans count in x alone and kernels divide. NotImplemented
// when there are more than a launch can have.
Dim3 linear_grid(int64_t blocks);

// Throws std::logic_error for what no supported GPU accepts: a plan must not fail in the driver.
void check(const LaunchPlan& plan);

}  // namespace vlmk::gpu
