// bar.sync, bar.red and bar.arrive.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

enum BarrierFlag : uint32_t {
    kReducePopc = 1U << kFamily,
    kReduceAnd = 2U << kFamily,
    kReduceOr = 4U << kFamily,
    kVoteNegated = 8U << kFamily,
};

// The barrier is operand a, the thread count (kHasCount) operand b, the vote predicate c, the result d.
// `lanes` arrive; those that wait are added to Warp::at_barrier.
void arrive_at_barrier(Warp& w, const Op& op, uint32_t lanes);
// Barriers that are complete because threads have exited.
void recheck_barriers(Block& block);

}  // namespace vlmk::emulator
