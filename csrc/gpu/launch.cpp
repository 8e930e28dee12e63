#include "gpu/launch.h"

#include "core/error.h"

namespace vlmk::gpu {
namespace {

// Limits of compute capability 8.0 and later.
constexpr int64_t kMaxGridX = 2147483647, kMaxGridYZ = 65535;
constexpr int64_t kMaxThreads = 1024, kMaxBlockZ = 64;
constexpr size_t kMaxParameterBytes = 4096;       // of any driver; newer ones take more
constexpr uint32_t kMaxSharedBytes = 227 * 1024;  // sm_90; the driver refuses what a smaller GPU lacks

}  // namespace

Dim3 linear_grid(int64_t blocks) {
    if (blocks > kMaxGridX)
        throw NotImplemented("the problem needs " + std::to_string(blocks) + " blocks and a launch has at most " +
                             std::to_string(kMaxGridX) + ": split the batch");
    return {static_cast<uint32_t>(blocks), 1, 1};
}

void check(const LaunchPlan& plan) {
    const auto hold = [&plan](bool condition, const char* what) {
        if (!condition) throw std::logic_error("launch plan of " + plan.kernel + ": " + what);
    };
    const Dim3 &g = plan.grid, &b = plan.block;
    hold(g.x > 0 && g.y > 0 && g.z > 0, "the grid is empty");
    hold(g.x <= kMaxGridX && g.y <= kMaxGridYZ && g.z <= kMaxGridYZ, "the grid is too large");
    hold(b.x > 0 && b.y > 0 && b.z > 0 && b.z <= kMaxBlockZ, "the block is empty or too deep");
    hold(int64_t{b.x} * b.y * b.z <= kMaxThreads, "a block has more than 1024 threads");
    hold(plan.shared_bytes <= kMaxSharedBytes, "more than 227 KB of shared memory");
    hold(plan.parameters.size() <= kMaxParameterBytes, "more than 4096 bytes of parameters");
}

}  // namespace vlmk::gpu
