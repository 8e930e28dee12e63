#include "emulator/block.h"

#include <algorithm>

#include "emulator/async.h"
#include "emulator/interpreter.h"
#include "emulator/shadow.h"

namespace vlmk::emulator {
namespace {

constexpr uint64_t kRoundRobinBudget = 2048;
constexpr uint64_t kRandomBudget = 64;
constexpr uint64_t kFailedWaitLimit = 200000;  // with no other progress, this is a deadlock

uint64_t next_random(uint64_t& state) {  // splitmix64
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

void poison(uint8_t* memory, size_t bytes) {
    for (size_t i = 0; i + 1 < bytes; i += 2) std::memcpy(memory + i, &kPoison, 2);
    if (bytes % 2 != 0) memory[bytes - 1] = static_cast<uint8_t>(kPoison);
}

}  // namespace

BlockRunner::BlockRunner(const Launch& launch) : launch_(launch) {
    const Program& program = *launch.program;
    register_stride_ = padded(program.register_bytes) + 64;
    local_stride_ = padded(size_t{program.local_bytes} * kLanes);
    const size_t shared = padded(launch.shared_bytes) + 64;
    const size_t constants = padded(program.constants.size()) + 64;
    memory_.reset(new uint8_t[(register_stride_ + local_stride_) * launch.warps + shared + constants + 64]);
    auto* at = reinterpret_cast<uint8_t*>(padded(reinterpret_cast<uintptr_t>(memory_.get())));
    registers_ = at;
    locals_ = registers_ + register_stride_ * launch.warps;
    block_.shared = locals_ + local_stride_ * launch.warps;
    uint8_t* constant_rows = block_.shared + shared;
    std::copy(program.constants.begin(), program.constants.end(), constant_rows);
    predicates_.resize((program.predicates + size_t{1}) * launch.warps);

    block_.launch = &launch;
    block_.program = &program;
    block_.shared_bytes = launch.shared_bytes;
    block_.checks = launch.options->checks;
    block_.counters = launch.options->counters;
    if (block_.counters) block_.executed.assign(program.ops.size(), 0);
    block_.warps.resize(launch.warps);
    for (uint32_t i = 0; i < launch.warps; ++i) {
        Warp& w = block_.warps[i];
        w.index = i;
        w.block = &block_;
        w.base[0] = registers_ + register_stride_ * i;
        w.base[1] = constant_rows;
        w.local = locals_ + local_stride_ * i;
        w.predicates = predicates_.data() + (program.predicates + size_t{1}) * i;
    }
}
BlockRunner::~BlockRunner() = default;

void BlockRunner::start_warp(Warp& w) {
    const Dim3& size = launch_.options->block;
    const Dim3& grid = launch_.options->grid;
    const uint32_t first = w.index * kLanes;
    const uint32_t threads = std::min(kLanes, launch_.block_threads - first);
    w.live = w.started = threads == kLanes ? kAllLanes : (1U << threads) - 1;
    w.waiting = w.at_barrier = w.spins = 0;
    w.pc.fill(0);
    w.clocks.fill(0);
    w.clocks[w.index] = 1;
    w.synchronised = 1;
    w.copy_groups.fill(0);
    for (auto& copies : w.copies) copies.clear();
    for (const auto& [special, operand] : launch_.program->specials) {
        auto* d = result_row<uint32_t>(w, operand);
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
            const uint32_t thread = first + lane;
            uint32_t value = 0;
            switch (special) {
                case Special::tid_x:
                    value = thread % size.x;
                    break;
                case Special::tid_y:
                    value = thread / size.x % size.y;
                    break;
                case Special::tid_z:
                    value = thread / size.x / size.y;
                    break;
                case Special::ntid_x:
                    value = size.x;
                    break;
                case Special::ntid_y:
                    value = size.y;
                    break;
                case Special::ntid_z:
                    value = size.z;
                    break;
                case Special::ctaid_x:
                    value = block_.index.x;
                    break;
                case Special::ctaid_y:
                    value = block_.index.y;
                    break;
                case Special::ctaid_z:
                    value = block_.index.z;
                    break;
                case Special::nctaid_x:
                    value = grid.x;
                    break;
                case Special::nctaid_y:
                    value = grid.y;
                    break;
                case Special::nctaid_z:
                    value = grid.z;
                    break;
                case Special::laneid:
                    value = lane;
                    break;
                case Special::warpid:
                    value = w.index;
                    break;
                case Special::nwarpid:
                    value = launch_.warps;
                    break;
                case Special::smid:
                    value = 0;
                    break;
                case Special::nsmid:
                    value = 1;
                    break;
                case Special::gridid:
                    value = 0;
                    break;
                case Special::lanemask_eq:
                    value = 1U << lane;
                    break;
                case Special::lanemask_lt:
                    value = (1U << lane) - 1;
                    break;
                case Special::lanemask_le:
                    value = (2U << lane) - 1;
                    break;
                case Special::lanemask_ge:
                    value = ~((1U << lane) - 1);
                    break;
                case Special::lanemask_gt:
                    value = ~((2U << lane) - 1);
                    break;
                case Special::dynamic_smem_size:
                    value = launch_.options->dynamic_shared_bytes;
                    break;
                case Special::total_smem_size:
                    value = launch_.shared_bytes;
                    break;
                case Special::count_:
                    break;
            }
            d[lane] = value;
        }
    }
}

void BlockRunner::start(Dim3 index) {
    block_.index = index;
    // A second block on the same host thread must not find what the first has left.
    poison(registers_, register_stride_ * launch_.warps);
    poison(locals_, local_stride_ * launch_.warps);
    poison(block_.shared, launch_.shared_bytes);
    std::fill(predicates_.begin(), predicates_.end(), 0xfff7fff7U);
    block_.barriers.fill(Barrier{});
    if (block_.checks) {
        block_.cells.assign((launch_.shared_bytes >> launch_.program->granule_shift) + 1, Cell{});
    }
    block_.strong_clocks.fill(0);
    block_.mbarriers.clear();
    block_.exited_threads = block_.instructions = block_.failed_waits = 0;
    block_.stopped = block_.exit_reported = false;
    for (Warp& w : block_.warps) start_warp(w);
}

void BlockRunner::report_deadlock() {
    bool told = false;
    std::vector<uint32_t> seen;
    for (Warp& w : block_.warps) {
        for (uint32_t left = w.live; left != 0; left &= left - 1) {
            const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
            const uint32_t position = w.pc[lane];
            if (std::find(seen.begin(), seen.end(), position) != seen.end()) continue;
            seen.push_back(position);
            const Op& op = launch_.program->ops[position];
            std::string message = "the block cannot go on";
            if (op.control == Control::barrier && (w.at_barrier >> lane & 1) != 0) {
                const uint32_t id = row<uint32_t>(w, op.a)[lane] % kBarriers;
                const Barrier& barrier = block_.barriers[id];
                message = "waits for ever at barrier " + std::to_string(id) + ": " + std::to_string(barrier.threads) +
                          " of " + std::to_string(barrier.expected != 0 ? barrier.expected : launch_.warps * kLanes) +
                          " threads have arrived";
            } else {
                message = "never gets past this instruction";
            }
            w.active = w.live;
            report(w, op, FindingKind::deadlock, lane, message);
            told = true;
        }
    }
    if (told) block_.stopped = true;
}

void BlockRunner::schedule() {
    const LaunchOptions& options = *launch_.options;
    const bool random = options.schedule == Schedule::random;
    uint32_t last = launch_.warps - 1;
    while (!block_.stopped) {
        uint32_t ready[kMaxWarps], count = 0;
        bool alive = false;
        for (uint32_t i = 1; i <= launch_.warps; ++i) {  // round robin goes on after the warp that ran last
            const uint32_t index = (last + i) % launch_.warps;
            const Warp& w = block_.warps[index];
            alive = alive || w.live != 0;
            if ((w.live & ~(w.waiting | w.at_barrier)) != 0) ready[count++] = index;
        }
        if (!alive) return;
        if (count == 0) {
            bool forced = false;
            for (Warp& w : block_.warps) forced = forced || force_waiting(w);
            if (!forced) report_deadlock();
            continue;
        }
        last = ready[random ? next_random(block_.random) % count : 0];
        Warp& w = block_.warps[last];
        const uint64_t budget = random ? 1 + next_random(block_.random) % kRandomBudget : kRoundRobinBudget;
        run_warp(w, budget);
        if ((w.live & ~(w.waiting | w.at_barrier)) == 0 && w.at_barrier == 0 && w.waiting != 0) force_waiting(w);
        if (block_.failed_waits > kFailedWaitLimit || block_.instructions > options.instruction_limit)
            report_deadlock();
    }
}

void BlockRunner::run(Dim3 index, uint64_t linear_index) {
    start(index);
    block_.random = launch_.options->seed * 0x2545f4914f6cdd1d + linear_index;
    schedule();
    ++block_.traffic.blocks;
    block_.traffic.warps += launch_.warps;
    block_.traffic.warp_instructions += block_.instructions;
}

}  // namespace vlmk::emulator
