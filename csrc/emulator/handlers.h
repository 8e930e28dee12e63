// What one instruction does to the lanes of a warp. These sources (csrc/emulator/lanes) are compiled once for the
// baseline and once for AVX2 with FMA; the table of the machine at hand is picked when a module is decoded.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

enum class IntegerOp : uint8_t {
    add,
    sub,
    mul_lo,
    mul_hi,
    mul_wide,
    mad_lo,
    mad_hi,
    mad_wide,
    mul24_lo,
    mul24_hi,
    mad24_lo,
    mad24_hi,
    sad,
    div,
    rem,
    abs,
    neg,
    min,
    max,
    add_sat,
    sub_sat,
    mad_hi_sat,
    popc,
    clz,
    bfind,
    bfind_shift,
    brev,
    bfe,
    bfi,
    szext_clamp,
    szext_wrap,
    bmsk_clamp,
    bmsk_wrap,
    fns,
    and_,
    or_,
    xor_,
    not_,
    cnot,
    lop3,
    shf_l_wrap,
    shf_l_clamp,
    shf_r_wrap,
    shf_r_clamp,
    shl,
    shr,
    prmt,
    dp4a,
    dp2a_lo,
    dp2a_hi,
    add_carry,
    sub_carry,
    mad_lo_carry,
    mad_hi_carry,
    relu,
};

enum class FloatOp : uint8_t {
    add,
    sub,
    mul,
    fma,
    div,
    min,
    max,
    min_nan,
    max_nan,
    min_xorsign,
    max_xorsign,
    min_nan_xorsign,
    max_nan_xorsign,
    abs,
    neg,
    rcp,
    sqrt,
    rsqrt,
    sin,
    cos,
    lg2,
    ex2,
    tanh,
    copysign,
    saturate,
    relu,
    testp,
};

enum class Rounding : uint8_t { none, rn, rz, rm, rp, rna };

// Flags of the families.
enum IntegerFlag : uint32_t {
    kCarryIn = 1U << kFamily,
    kCarryOut = 2U << kFamily,
    kSignedA = 4U << kFamily,  // dp4a, dp2a
    kSignedB = 8U << kFamily,
};
enum HalfFlag : uint32_t { kPackedHalves = 1U << kFamily, kFlushHalves = 2U << kFamily };
// How a predicate that an instruction combines with is read.
enum CompareFlag : uint32_t {
    kRelations = 1U << kFamily,  // four bits: less, equal, greater, unordered
    kCombineAnd = 1U << (kFamily + 4),
    kCombineOr = 2U << (kFamily + 4),
    kCombineXor = 4U << (kFamily + 4),
    kCombineNegated = 8U << (kFamily + 4),
    kResultFloat = 16U << (kFamily + 4),  // set: 1.0 for true
    kFlushInputs = 32U << (kFamily + 4),
};

struct HandlerTable {
    Handler (*integer)(IntegerOp op, Type type);
    Handler (*compare)(Type type, Type result);  // pred result: setp, else set
    Handler (*floating)(FloatOp op, Type type, bool flush);
    Handler (*half)(FloatOp op, Type type);                                    // with half_flags
    Handler (*convert)(Type to, Type from, Rounding rounding, bool integral);  // null where there is no fast one
    Handler (*move)(Type type);
    Handler (*select)(Type type);
    Handler (*mma)(Type a, Type accumulator);  // op.a, op.b: the types, op.c: saturate
};

namespace baseline {
extern const HandlerTable handlers;
}
namespace avx2 {
extern const HandlerTable handlers;
}
const HandlerTable& handlers();

}  // namespace vlmk::emulator
