#include "emulator/interpreter.h"

#include <algorithm>

#include "emulator/async.h"
#include "emulator/barrier.h"

namespace vlmk::emulator {
namespace {

constexpr uint32_t kSpinLimit = 1024;     // backward jumps of diverged threads before the others get a turn
constexpr uint32_t kYieldedBudget = 512;  // instructions of that turn

uint32_t first_lane(uint32_t lanes) { return static_cast<uint32_t>(__builtin_ctz(lanes)); }

void set_pc(Warp& w, uint32_t lanes, uint32_t pc) {
    for (; lanes != 0; lanes &= lanes - 1) w.pc[first_lane(lanes)] = pc;
}

// The lanes that an instruction needs; `lane` is one of those that run it.
uint32_t members(const Warp& w, const Op& op, uint32_t lane) {
    return (op.flags & kFullMask) != 0 ? kAllLanes : row<uint32_t>(w, op.target)[lane];
}

void run_together(Warp& w, const Op& op, uint32_t lanes) {
    w.active = lanes;
    if (op.control == Control::barrier) {
        arrive_at_barrier(w, op, lanes);
        return;
    }
    op.run(w, op);
    for (uint32_t left = lanes; left != 0; left &= left - 1) ++w.pc[first_lane(left)];
}

// The mask must be all lanes where the instruction is for whole warps, and hold every lane that runs it.
void check_members(Warp& w, const Op& op, uint32_t lanes, uint32_t mask) {
    if (!w.block->checks) return;
    if (op.instruction_class == InstructionClass::tensor && lanes != kAllLanes)
        report(w, op, FindingKind::warp_mask, first_lane(lanes),
               "needs all 32 lanes of the warp, " + std::to_string(__builtin_popcount(lanes)) + " run it");
    else if ((lanes & ~mask) != 0)
        report(w, op, FindingKind::warp_mask, first_lane(lanes & ~mask),
               "runs in lane " + std::to_string(first_lane(lanes & ~mask)) + ", which its member mask does not name");
}

// Lanes of `arriving` are at op. Runs those whose partners are there, lets the others wait.
void meet(Warp& w, const Op& op, uint32_t arriving) {
    const auto position = w.block->op_index(op);
    for (uint32_t left = arriving; left != 0; left &= left - 1) {
        const uint32_t lane = first_lane(left);
        w.pc[lane] = position;
        w.wanted[lane] = members(w, op, lane);
    }
    w.waiting |= arriving;
    while (arriving != 0) {
        const uint32_t mask = w.wanted[first_lane(arriving)];
        uint32_t present = 0;
        for (uint32_t left = w.waiting; left != 0; left &= left - 1) {
            const uint32_t lane = first_lane(left);
            const Op& other = w.block->program->ops[w.pc[lane]];
            const bool same_place = w.pc[lane] == position ||
                                    (op.control == Control::warp_barrier && other.control == Control::warp_barrier);
            if (same_place && w.wanted[lane] == mask) present |= 1U << lane;
        }
        arriving &= ~present;
        if ((mask & w.live & ~present) != 0) continue;  // they wait
        check_members(w, op, present, mask);
        w.waiting &= ~present;
        run_together(w, op, present);
    }
}

// After an exit fewer lanes are needed.
bool meet_again(Warp& w) {
    for (uint32_t left = w.waiting; left != 0; left &= left - 1) {
        const uint32_t lane = first_lane(left);
        const uint32_t before = w.waiting;
        meet(w, w.block->program->ops[w.pc[lane]], 1U << lane);
        if (w.waiting != before) return true;
    }
    return false;
}

void exit_lanes(Warp& w, uint32_t lanes) {
    for (uint32_t left = lanes; left != 0; left &= left - 1) land_all(w, first_lane(left));
    w.live &= ~lanes;
    w.block->exited_threads += static_cast<uint32_t>(__builtin_popcount(lanes));
    recheck_barriers(*w.block);
}

// Where the lanes of a jump table go; its operand out of range is undefined, so it is reported and the thread ends.
void jump_indexed(Warp& w, const Op& op, uint32_t lanes) {
    uint32_t lost = 0;
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
        const uint32_t lane = first_lane(left);
        const uint32_t index = row<uint32_t>(w, op.a)[lane];
        if (index < op.count) {
            w.pc[lane] = list(w, op)[index];
        } else {
            report(w, op, FindingKind::trap, lane,
                   "jump table index " + std::to_string(index) + " of " + std::to_string(op.count));
            lost |= 1U << lane;
        }
    }
    if (lost != 0) exit_lanes(w, lost);
}

struct Group {
    uint32_t lanes = 0, pc = 0;
    uint32_t next = ~0U;  // lowest position of another group that can run
};

Group lowest(const Warp& w, uint32_t runnable) {
    Group group;
    group.pc = ~0U;
    for (uint32_t left = runnable; left != 0; left &= left - 1) group.pc = std::min(group.pc, w.pc[first_lane(left)]);
    for (uint32_t left = runnable; left != 0; left &= left - 1) {
        const uint32_t lane = first_lane(left);
        if (w.pc[lane] == group.pc)
            group.lanes |= 1U << lane;
        else
            group.next = std::min(group.next, w.pc[lane]);
    }
    return group;
}

template <bool Counting>
void run(Warp& w, uint64_t budget) {
    Block& block = *w.block;
    const Op* const ops = block.program->ops.data();
    const uint64_t failed_before = block.failed_waits;  // after a wait that fails, others have to get on first
    while (budget > 0 && !block.stopped) {
        const uint32_t runnable = w.live & ~(w.waiting | w.at_barrier);
        if (runnable == 0) {
            if (w.waiting != 0 && meet_again(w)) continue;
            return;
        }
        Group group = lowest(w, runnable);
        uint64_t turn = budget;
        if (w.spins >= kSpinLimit && group.next != ~0U) {  // the others' turn, wherever they are
            w.spins = 0;
            group = lowest(w, runnable & ~group.lanes);
            group.next = ~0U;
            turn = std::min<uint64_t>(budget, kYieldedBudget);
        }
        const uint32_t lanes = group.lanes;
        const bool diverged = lanes != runnable;
        uint32_t pc = group.pc;
        uint64_t left = turn;
        bool stay = true;
        while (stay) {
            const Op& op = ops[pc];
            uint32_t active = lanes;
            if (op.guard != kNoPredicate) {
                const uint32_t p = w.predicates[op.guard];
                active &= op.guard_negated ? ~p : p;
            }
            if (!op.added) {
                --left;
                if constexpr (Counting) {
                    ++block.executed[pc];
                    block.traffic.thread_instructions += static_cast<uint32_t>(__builtin_popcount(active));
                    block.traffic.partial_instructions += active != kAllLanes ? 1 : 0;
                }
            }
            w.active = active;
            switch (op.control) {
                case Control::none:
                    if (active != 0) op.run(w, op);
                    ++pc;
                    break;
                case Control::branch: {
                    if constexpr (Counting) {
                        block.traffic.branches += op.added ? 0 : 1;
                        block.traffic.divergent_branches += active != 0 && active != lanes ? 1 : 0;
                    }
                    if (active == 0) {
                        ++pc;
                        break;
                    }
                    if (op.target <= pc && diverged && ++w.spins >= kSpinLimit) stay = false;
                    if (active == lanes) {
                        pc = op.target;
                        break;
                    }
                    set_pc(w, active, op.target);
                    set_pc(w, lanes & ~active, pc + 1);
                    goto regroup;
                }
                case Control::indexed_branch:
                    set_pc(w, lanes, pc + 1);
                    jump_indexed(w, op, active);
                    goto regroup;
                case Control::exit:
                    set_pc(w, lanes, pc + 1);
                    if (active != 0) exit_lanes(w, active);
                    goto regroup;
                case Control::trap:
                    set_pc(w, lanes, pc + 1);
                    if (active == 0) goto regroup;
                    report(w, op, FindingKind::trap, first_lane(active), "trap");
                    block.stopped = true;
                    goto regroup;
                case Control::warp_sync:
                case Control::warp_barrier:
                    if (active == lanes && lanes == w.live && (op.flags & kFullMask) != 0 &&
                        (lanes == kAllLanes || !block.checks)) {  // nobody to wait for
                        op.run(w, op);
                        ++pc;
                        break;
                    }
                    set_pc(w, lanes, pc + 1);
                    if (active != 0) meet(w, op, active);
                    goto regroup;
                case Control::barrier:
                    set_pc(w, lanes, pc + 1);
                    if (active == 0) goto regroup;
                    if ((op.flags & kAligned) != 0 && active != w.live) {
                        meet(w, op, active);  // the other lanes of the warp have to come first
                    } else {
                        set_pc(w, active, pc);
                        arrive_at_barrier(w, op, active);
                    }
                    goto regroup;
            }
            if (pc >= group.next || left == 0 || block.failed_waits > failed_before) stay = false;
        }
        set_pc(w, lanes, pc);
    regroup:
        block.instructions += turn - left;
        budget -= std::min(budget, turn - left);
        if (block.failed_waits > failed_before) return;
    }
}

}  // namespace

void run_warp(Warp& w, uint64_t budget) {
    if (w.block->counters)
        run<true>(w, budget);
    else
        run<false>(w, budget);
}

bool force_waiting(Warp& w) {
    if (w.waiting == 0) return false;
    const uint32_t first = first_lane(w.waiting);
    const uint32_t position = w.pc[first], mask = w.wanted[first];
    const Op& op = w.block->program->ops[position];
    uint32_t present = 0;
    for (uint32_t left = w.waiting; left != 0; left &= left - 1)
        if (w.pc[first_lane(left)] == position && w.wanted[first_lane(left)] == mask) present |= 1U << first_lane(left);
    const uint32_t missing = (mask & w.live & ~present) != 0 ? mask & w.live & ~present : present;
    const std::string message =
        "waits for lane " + std::to_string(first_lane(missing)) +
        " of its warp, which does not come here: " + std::to_string(__builtin_popcount(present)) + " of " +
        std::to_string(__builtin_popcount(mask & w.live)) + " lanes are there";
    w.active = present;
    report(w, op, op.control == Control::barrier ? FindingKind::barrier_divergence : FindingKind::warp_mask, first,
           message);
    w.waiting &= ~present;
    run_together(w, op, present);
    return true;
}

}  // namespace vlmk::emulator
