#include "emulator/barrier.h"

#include <algorithm>

#include "emulator/shadow.h"

namespace vlmk::emulator {
namespace {

bool complete(const Block& block, const Barrier& barrier) {
    if (!barrier.in_use) return false;
    if (barrier.expected != 0) return barrier.threads >= barrier.expected;
    for (const Warp& w : block.warps)
        if ((w.live & ~barrier.arrived[w.index]) != 0) return false;
    return true;
}

void release(Block& block, Barrier& barrier) {
    const Op& op = block.program->ops[barrier.op];
    const bool reduces = (op.flags & (kReducePopc | kReduceAnd | kReduceOr)) != 0;
    ++block.traffic.barriers;
    block.failed_waits = 0;
    if (barrier.expected == 0 && block.exited_threads > 0 && !block.exit_reported && block.checks) {
        block.exit_reported = true;
        for (Warp& w : block.warps)
            if ((barrier.arrived[w.index] & w.live) != 0) {
                report(w, op, FindingKind::barrier_divergence,
                       static_cast<uint32_t>(__builtin_ctz(barrier.arrived[w.index] & w.live)),
                       std::to_string(block.exited_threads) +
                           " threads of the block have exited without this barrier, which is for all of them");
                break;
            }
    }
    for (Warp& w : block.warps) {
        const uint32_t waiting = barrier.arrived[w.index] & w.at_barrier;
        uint32_t released = 0;
        for (uint32_t left = waiting; left != 0; left &= left - 1) {
            const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
            const Op& own = block.program->ops[w.pc[lane]];
            // A lane may wait at another barrier where it only had arrived here.
            if (row<uint32_t>(w, own.a)[lane] % kBarriers != static_cast<uint32_t>(&barrier - block.barriers.data()))
                continue;
            released |= 1U << lane;
            if (reduces) {
                if ((own.flags & kReducePopc) != 0) result_row<uint32_t>(w, own.d)[lane] = barrier.votes;
                const bool all = barrier.votes == barrier.voters, any = barrier.votes != 0;
                if ((own.flags & (kReduceAnd | kReduceOr)) != 0) {
                    const bool value = (own.flags & kReduceAnd) != 0 ? all : any;
                    uint32_t& p = w.predicates[own.d];
                    p = value ? p | 1U << lane : p & ~(1U << lane);
                }
            }
            ++w.pc[lane];
        }
        if (released == 0) continue;
        w.at_barrier &= ~released;
        join(w, barrier.clocks);
        if ((w.live & ~released) == 0)
            synchronise_lanes(w);
        else
            ++w.clocks[w.index];
    }
    barrier = Barrier{};
}

}  // namespace

void arrive_at_barrier(Warp& w, const Op& op, uint32_t lanes) {
    Block& block = *w.block;
    while (lanes != 0) {  // one barrier at a time, should they differ
        const auto first = static_cast<uint32_t>(__builtin_ctz(lanes));
        const uint32_t id = row<uint32_t>(w, op.a)[first];
        uint32_t group = 0;
        for (uint32_t left = lanes; left != 0; left &= left - 1)
            if (row<uint32_t>(w, op.a)[__builtin_ctz(left)] == id) group |= left & (0U - left);
        lanes &= ~group;
        if (id >= kBarriers) {
            report(w, op, FindingKind::barrier_divergence, first,
                   "barrier " + std::to_string(id) + " does not exist: there are 16");
            block.stopped = true;
            return;
        }
        Barrier& barrier = block.barriers[id];
        const uint32_t expected = (op.flags & kHasCount) != 0 ? row<uint32_t>(w, op.b)[first] : 0;
        if (barrier.in_use && barrier.expected != expected)
            report(w, op, FindingKind::barrier_divergence, first,
                   "barrier " + std::to_string(id) + " is used for " + std::to_string(expected) +
                       " threads here and for " + std::to_string(barrier.expected) + " at PTX line " +
                       std::to_string(block.program->sources[barrier.op].ptx_line) + " (0: all)");
        if (expected % kLanes != 0)
            report(w, op, FindingKind::barrier_divergence, first,
                   "a barrier's thread count must be a multiple of 32, not " + std::to_string(expected));
        barrier.in_use = true;
        barrier.expected = expected;
        barrier.op = block.op_index(op);
        barrier.arrived[w.index] |= group;
        // The last warp of a block may have fewer threads and still counts as a whole one.
        barrier.threads += group == w.live ? kLanes : static_cast<uint32_t>(__builtin_popcount(group));
        if ((op.flags & (kReducePopc | kReduceAnd | kReduceOr)) != 0) {
            uint32_t votes = w.predicates[op.c];
            if ((op.flags & kVoteNegated) != 0) votes = ~votes;
            barrier.votes += static_cast<uint32_t>(__builtin_popcount(votes & group));
            barrier.voters += static_cast<uint32_t>(__builtin_popcount(group));
        }
        publish(w, barrier.clocks);
        if ((op.flags & kArrive) == 0) {
            w.at_barrier |= group;
        } else {
            for (uint32_t left = group; left != 0; left &= left - 1) ++w.pc[__builtin_ctz(left)];
        }
        if (complete(block, barrier)) release(block, barrier);
    }
}

void recheck_barriers(Block& block) {
    for (Barrier& barrier : block.barriers)
        if (complete(block, barrier)) release(block, barrier);
}

}  // namespace vlmk::emulator
