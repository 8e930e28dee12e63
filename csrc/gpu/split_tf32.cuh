// Products of fp32 numbers on tensor cores: each number is the sum of two of tf32, large and small, and
//     a b = large large + large small + small large + (what is left out, 2^-22 of it).
// Markidis et al., "NVIDIA Tensor Core Programmability, Performance & Precision" (2018).
#pragma once
#include "gpu/mma.cuh"

namespace vlmk::gpu {

template <class Fragment>
struct Split {
    Fragment large, small;
};
using SplitLeft = Split<LeftFragment<tf32, 8>>;
using SplitRight = Split<RightFragment<tf32, 8>>;

// Of a fragment whose registers are fp32. Large is rounded as the integer that a float also is, which takes fewer
// instructions than the conversion; small is exact, and the tensor cores cut it off at 2^-22 of the number.
template <class Fragment>
VLMK_DEVICE Split<Fragment> split(const Fragment& whole) {
    Split<Fragment> parts;
#pragma unroll
    for (int i = 0; i < Fragment::kRegisters; ++i) {
        parts.large.r[i] = (whole.r[i] + 0x1000u) & 0xffffe000u;
        parts.small.r[i] = __float_as_uint(__uint_as_float(whole.r[i]) - __uint_as_float(parts.large.r[i]));
    }
    return parts;
}

// The two parts of a product in accumulators of their own: one that is far below the other should not be rounded with
// it.
VLMK_DEVICE void mma_small(Accumulator<>& d, const SplitLeft& a, const SplitRight& b) {
    mma(d, a.small, b.large);
    mma(d, a.large, b.small);
}
VLMK_DEVICE void mma_large(Accumulator<>& d, const SplitLeft& a, const SplitRight& b) { mma(d, a.large, b.large); }

VLMK_DEVICE void add(Accumulator<>& d, const Accumulator<>& part) {
#pragma unroll
    for (int i = 0; i < 4; ++i) d.v[i] += part.v[i];
}

}  // namespace vlmk::gpu
