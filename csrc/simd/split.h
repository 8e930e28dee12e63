// Numbers as sums of bf16, the largest part first. What remains after each rounding is exact, so three parts hold all
// bits of a float, and two those of an fp16.
#pragma once
#include "simd/vec.h"

namespace vlmk::VLMK_ISA {

template <int kParts>
struct Pairs {
    UintVec part[kParts];
};

// Pairs of bf16, lane by lane, of numbers that are their sums.
template <int kParts>
inline Pairs<kParts> split_pairs(Vec low, Vec high) {
    constexpr uint32_t kHalf = 0x8000u, kBf16 = 0xffff0000u;
    Pairs<kParts> pairs;
    VLMK_UNROLL for (int i = 0; i < kParts; ++i) {
        // The last of three parts needs no rounding.
        const uint32_t half = i < 2 ? kHalf : 0u;
        const UintVec a = ((UintVec)low + half) & kBf16, b = ((UintVec)high + half) & kBf16;
        pairs.part[i] = a >> 16 | b;
        low -= (Vec)a;
        high -= (Vec)b;
    }
    return pairs;
}

}  // namespace vlmk::VLMK_ISA
