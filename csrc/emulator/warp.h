// Instructions that the threads of a warp do together.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

enum class Shuffle : uint8_t { up, down, bfly, idx };
enum class Vote : uint8_t { all, any, uni, ballot };
enum class Reduction : uint8_t { add, min_u, max_u, min_s, max_s, and_, or_, xor_ };

enum WarpFlag : uint32_t {
    kTranspose = 1U << kFamily,
    kSourceNegated = 2U << kFamily,
    kAbsolute = 4U << kFamily,
    kPropagateNan = 8U << kFamily,
};

// The member mask is operand op.target. op.value picks the variant.
void shfl(Warp& w, const Op& op);         // d, a, b, c; predicate op.count
void vote(Warp& w, const Op& op);         // predicate or row d, predicate a
void match_any(Warp& w, const Op& op);    // d, a of op.bytes
void match_all(Warp& w, const Op& op);    // d, a of op.bytes; predicate op.count
void redux(Warp& w, const Op& op);        // d, a
void redux_float(Warp& w, const Op& op);  // d, a; op.value: 0 minimum, 1 maximum
void activemask(Warp& w, const Op& op);   // d
void elect(Warp& w, const Op& op);        // d (with op.value), predicate op.count
void warp_barrier(Warp& w, const Op& op);
void ldmatrix(Warp& w, const Op& op);  // op.count registers in the list
void stmatrix(Warp& w, const Op& op);
void movmatrix(Warp& w, const Op& op);  // d, a

}  // namespace vlmk::emulator
