// Copies from global to shared memory that run beside computation. A thread starts copies, closes them into a group
// with commit_copies(), and later waits until at most kPending of its own newest groups are unfinished. Others' copies
// are visible after their wait and a barrier.
//
//     for each stage but the last: start its copies, commit_copies()
//     for each tile: wait_copies<kStages - 2>(); barrier; start the copies kStages - 1 tiles ahead, commit_copies()
//     (also where there are none left);
//                    compute
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

// kBytes of 4, 8 or 16, aligned to that on both sides. 16 bytes go past the first-level cache.
template <int kBytes = 16>
VLMK_DEVICE void copy_async(uint32_t shared, const void* global) {
    static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (kBytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(global), "n"(kBytes) : "memory");
}

// The first `valid` bytes, and zeros behind them. With none valid nothing is read, but the address must still be one of
// the tensor's.
template <int kBytes = 16>
VLMK_DEVICE void copy_async_or_zero(uint32_t shared, const void* global, int valid) {
    static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (kBytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(global), "n"(kBytes), "r"(valid)
                     : "memory");
}

VLMK_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kPending>
VLMK_DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace vlmk::gpu
