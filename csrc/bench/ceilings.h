// What this machine can do at most, measured: multiplications and additions that never leave the registers, 2^x in the
// first-level cache, memory that is read or copied once. Every share of a ceiling in the benchmarks is relative to
// these.
#pragma once
#include <cstdint>

#include "core/isa.h"

namespace vlmk {

// `operations` that one call did, and a number that depends on all of them, so that no compiler leaves any out.
struct CeilingWork {
    double operations = 0;
    float witness = 0;
};

// Floating-point operations of `rounds` rounds over independent accumulators: fused multiply-add in fp32 ...
VLMK_DECLARE_PER_ISA(CeilingWork multiply_add_work(int64_t rounds))
// ... and pairs of bf16 multiplied and summed in fp32, in vectors and in tiles; 0 operations where the instruction set
// has no such instruction.
VLMK_DECLARE_PER_ISA(CeilingWork bf16_dot_work(int64_t rounds))
VLMK_DECLARE_PER_ISA(CeilingWork bf16_tiles_work(int64_t rounds))
// Powers 2^x, x <= 0, of numbers in the first-level cache.
VLMK_DECLARE_PER_ISA(CeilingWork exp2_work(int64_t rounds))
// Bytes read once, front to back.
VLMK_DECLARE_PER_ISA(CeilingWork read_work(const float* from, int64_t count))

// Work and seconds of all threads together, each doing the whole of `rounds` (or its share of the memory).
struct CeilingRate {
    double operations = 0, seconds = 0;
};

enum class Ceiling { multiply_add, bf16_dot, bf16_tiles, exp2 };
CeilingRate compute_ceiling(Ceiling kind, int64_t rounds, int threads);
CeilingRate read_ceiling(const float* from, int64_t count, int threads);
// Bytes read plus bytes written.
CeilingRate copy_ceiling(float* to, const float* from, int64_t count, int threads);

}  // namespace vlmk
