// Matrices of 8 x 8 16-bit elements from shared memory into fragments: kCount of them by one instruction. Lane 8 m + i
// gives the address of row i of matrix m, a multiple of 16. Lane l gets elements 2 (l % 4) and the next of row l / 4;
// transposed, of column l / 4.
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

template <bool kTransposed = false, int kCount>
VLMK_DEVICE void load_matrices(uint32_t (&r)[kCount], uint32_t address) {
    static_assert(kCount == 1 || kCount == 2 || kCount == 4, "ldmatrix loads 1, 2 or 4 matrices");
    // The memory clobber keeps a load on its side of the barriers and waits around it.
#define VLMK_LDMATRIX(transposed)                                                                     \
    if constexpr (kCount == 1)                                                                        \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" transposed ".shared.b16 {%0}, [%1];"             \
                     : "=r"(r[0])                                                                     \
                     : "r"(address)                                                                   \
                     : "memory");                                                                     \
    else if constexpr (kCount == 2)                                                                   \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" transposed ".shared.b16 {%0, %1}, [%2];"         \
                     : "=r"(r[0]), "=r"(r[1])                                                         \
                     : "r"(address)                                                                   \
                     : "memory");                                                                     \
    else                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" transposed ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                 \
                     : "r"(address)                                                                   \
                     : "memory");
    if constexpr (kTransposed) {
        VLMK_LDMATRIX(".trans")
    } else {
        VLMK_LDMATRIX("")
    }
#undef VLMK_LDMATRIX
}

}  // namespace vlmk::gpu
