// mma(d, a, b): d += a b on the tensor cores of one warp, for the element types and depths the operations need. Sums
// are fp32, or int32 for int8.
#pragma once
#include "gpu/fragments.cuh"

namespace vlmk::gpu {

// `types` are those of D, A, B and C in the instruction's name; `bound` is the asm constraint of a number of D.
#define VLMK_MMA_LONG(T, depth, Number, types, bound)                                                                 \
    VLMK_DEVICE void mma(Accumulator<Number>& d, const LeftFragment<T, depth>& a, const RightFragment<T, depth>& b) { \
        asm volatile("mma.sync.aligned.m16n8k" #depth ".row.col." types                                               \
                     " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                               \
                     : "+" bound(d.v[0]), "+" bound(d.v[1]), "+" bound(d.v[2]), "+" bound(d.v[3])                     \
                     : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));                 \
    }
#define VLMK_MMA_SHORT(T, depth, Number, types, bound)                                                                \
    VLMK_DEVICE void mma(Accumulator<Number>& d, const LeftFragment<T, depth>& a, const RightFragment<T, depth>& b) { \
        asm volatile("mma.sync.aligned.m16n8k" #depth ".row.col." types                                               \
                     " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                                           \
                     : "+" bound(d.v[0]), "+" bound(d.v[1]), "+" bound(d.v[2]), "+" bound(d.v[3])                     \
                     : "r"(a.r[0]), "r"(a.r[1]), "r"(b.r[0]));                                                        \
    }

VLMK_MMA_LONG(f16, 16, float, "f32.f16.f16.f32", "f")
VLMK_MMA_LONG(bf16, 16, float, "f32.bf16.bf16.f32", "f")
VLMK_MMA_LONG(tf32, 8, float, "f32.tf32.tf32.f32", "f")
VLMK_MMA_LONG(int8_t, 32, int32_t, "s32.s8.s8.s32", "r")
// Half the depth, for the last 8 (tf32: 4) of a head_dim.
VLMK_MMA_SHORT(f16, 8, float, "f32.f16.f16.f32", "f")
VLMK_MMA_SHORT(bf16, 8, float, "f32.bf16.bf16.f32", "f")
VLMK_MMA_SHORT(tf32, 4, float, "f32.tf32.tf32.f32", "f")

#undef VLMK_MMA_LONG
#undef VLMK_MMA_SHORT

}  // namespace vlmk::gpu
