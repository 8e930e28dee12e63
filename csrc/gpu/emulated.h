// Runs launch plans on the emulator: the PTX that ships, on CPU memory, with every check on.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "emulator/emulator.h"
#include "gpu/launch.h"

namespace vlmk::gpu {

// How every launch of the process runs.
struct EmulationSettings {
    emulator::Schedule schedule = emulator::Schedule::round_robin;
    uint64_t seed = 0;
    bool checks = true;
    bool counters = false;
    GpuLimits gpu{227 * 1024, 132};  // that plans are made for; an H100
};
void set_emulation(const EmulationSettings& settings);
EmulationSettings emulation();

// Asked before each launch which of its blocks run, by linear index: nullopt is all, none leaves a plan that is only
// listened to. What left-out blocks would have written is missing. Empty: all blocks of every launch.
using BlockSelection = std::function<std::optional<std::vector<uint64_t>>(const LaunchPlan&)>;
void set_block_selection(BlockSelection selection);

// Called after each launch with its report; empty: nobody is told.
using ReportListener = std::function<void(const LaunchPlan&, const emulator::Report&)>;
void set_report_listener(ReportListener listener);

// `regions` is all memory the kernel may touch. std::runtime_error names what the kernel did wrong.
void run_emulated(const LaunchPlan& plan, std::vector<emulator::Region> regions, int threads);

}  // namespace vlmk::gpu
