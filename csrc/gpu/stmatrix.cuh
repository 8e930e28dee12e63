// Matrices of 8 x 8 16-bit elements from fragments into shared memory, the reverse of ldmatrix: lane 8 m + i gives the
// address of row i of matrix m. One instruction from sm_90 on; before it, a shuffle and a store for each matrix do the
// same.
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

template <bool kTransposed = false, int kCount>
VLMK_DEVICE void store_matrices(uint32_t address, const uint32_t (&r)[kCount]) {
    static_assert(kCount == 2 || kCount == 4, "2 or 4 matrices at a time");
#if __CUDA_ARCH__ >= 900
#define VLMK_STMATRIX(transposed)                                                                                     \
    if constexpr (kCount == 2)                                                                                        \
        asm volatile("stmatrix.sync.aligned.m8n8.x2" transposed ".shared.b16 [%0], {%1, %2};" ::"r"(address),         \
                     "r"(r[0]), "r"(r[1])                                                                             \
                     : "memory");                                                                                     \
    else                                                                                                              \
        asm volatile("stmatrix.sync.aligned.m8n8.x4" transposed ".shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), \
                     "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])                                                       \
                     : "memory");
    if constexpr (kTransposed) {
        VLMK_STMATRIX(".trans")
    } else {
        VLMK_STMATRIX("")
    }
#undef VLMK_STMATRIX
#else
    const int lane = lane_index();
#pragma unroll
    for (int m = 0; m < kCount; ++m) {
        if constexpr (kTransposed) {
            // The lane's two elements are in column lane / 4 of rows 2 (lane % 4) and the next.
            const uint32_t first = __shfl_sync(kWholeWarp, address, 8 * m + lane % 4 * 2) + lane / 4 * 2;
            const uint32_t second = __shfl_sync(kWholeWarp, address, 8 * m + lane % 4 * 2 + 1) + lane / 4 * 2;
            asm volatile("st.shared.u16 [%0], %1;" ::"r"(first), "h"(static_cast<uint16_t>(r[m])) : "memory");
            asm volatile("st.shared.u16 [%0], %1;" ::"r"(second), "h"(static_cast<uint16_t>(r[m] >> 16)) : "memory");
        } else {
            const uint32_t row = __shfl_sync(kWholeWarp, address, 8 * m + lane / 4);
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(row + lane % 4 * 4), "r"(r[m]) : "memory");
        }
    }
#endif
}

}  // namespace vlmk::gpu
