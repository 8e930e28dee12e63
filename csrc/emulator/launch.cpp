// A grid: its blocks run on the threads of the host, in order of their index.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <tuple>

#include "core/error.h"
#include "emulator/block.h"
#include "emulator/module.h"

namespace vlmk::emulator {
namespace {

constexpr uint32_t kMaxSharedBytes = 232448;  // 227 KiB, the most any architecture gives a block

void check_launch(const KernelInfo& kernel, const LaunchOptions& options, size_t param_bytes, uint64_t shared) {
    const std::string where = "launch of '" + kernel.name + "': ";
    const auto dims = [](const Dim3& d) {
        return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
    };
    require(options.block.count() >= 1 && options.block.count() <= kernel.max_threads && options.block.x <= 1024 &&
                options.block.y <= 1024 && options.block.z <= 64,
            where + "a block of " + dims(options.block) + " threads; the kernel takes 1 to " +
                std::to_string(kernel.max_threads) + ", at most 1024, 1024 and 64 a side");
    require(options.grid.count() >= 1 && options.grid.x <= 0x7fffffffU && options.grid.y <= 65535 &&
                options.grid.z <= 65535,
            where + "a grid of " + dims(options.grid) + " blocks; x goes to 2^31 - 1, y and z to 65535");
    for (const uint64_t index : options.blocks.value_or(std::vector<uint64_t>()))
        require(index < options.grid.count(), where + "block " + std::to_string(index) + " of a grid of " +
                                                  std::to_string(options.grid.count()) + " blocks");
    require(shared <= kMaxSharedBytes, where + std::to_string(shared) +
                                           " bytes of shared memory; no GPU has more than " +
                                           std::to_string(kMaxSharedBytes) + " a block");
    require(param_bytes >= kernel.parameter_bytes, where + std::to_string(param_bytes) +
                                                       " bytes of parameters; the kernel takes " +
                                                       std::to_string(kernel.parameter_bytes));
}

void collect(Block& block, const ModuleImpl& module, Report& result) {
    for (auto& entry : block.findings) {  // C++17 lets no lambda take the names of a structured binding
        const auto op = static_cast<uint32_t>(entry.first);
        Finding& finding = entry.second;
        const SourceLine& source = block.program->sources[op];
        auto known = std::find_if(result.findings.begin(), result.findings.end(), [&](const Finding& f) {
            return f.kind == finding.kind && f.ptx_line == source.ptx_line && f.instruction == source.text;
        });
        if (known != result.findings.end()) {
            const uint64_t total = known->occurrences + finding.occurrences;
            const auto before = [](const Dim3& a, const Dim3& b) {
                return std::tie(a.z, a.y, a.x) < std::tie(b.z, b.y, b.x);
            };
            if (before(finding.block, known->block)) {  // the same report whatever block came first
                known->block = finding.block;
                known->thread = finding.thread;
                known->message = finding.message;
            }
            known->occurrences = total;
            continue;
        }
        finding.kernel = block.program->info.name;
        finding.ptx_line = source.ptx_line;
        finding.instruction = source.text;
        finding.source_line = source.line;
        if (source.line != 0 && source.file < module.files.size()) finding.source_file = module.files[source.file];
        result.findings.push_back(finding);
    }
    if (block.counters) {
        for (size_t i = 0; i < block.executed.size(); ++i) {
            const Op& op = block.program->ops[i];
            block.traffic.by_class[static_cast<size_t>(op.instruction_class)] += op.added ? 0 : block.executed[i];
            if (op.instruction_class == InstructionClass::tensor)
                block.traffic.tensor_flops += block.executed[i] * 2 * op.count * 8 * op.value;
        }
    }
    result.counters.add(block.traffic);
}

// An access is looked up in the last region that starts before it: one within another would hide what the other has
// behind it. Views of one tensor may lie like that.
void drop_contained(std::vector<Region>& regions) {
    std::vector<Region> kept;
    for (const Region& region : regions) {
        const bool contained = std::any_of(kept.begin(), kept.end(), [&](const Region& other) {
            return region.begin + region.bytes <= other.begin + other.bytes && (other.writable || !region.writable);
        });
        if (!contained) kept.push_back(region);
    }
    regions = std::move(kept);
}

}  // namespace

Report launch(const Module& module, const std::string& kernel, const void* params, size_t param_bytes,
              const LaunchOptions& options) {
    const auto started = std::chrono::steady_clock::now();
    const Program& program = module.impl().program(kernel);
    Launch launch;
    launch.module = &module.impl();
    launch.program = &program;
    launch.options = &options;
    const uint64_t shared = options.dynamic_shared_bytes == 0
                                ? program.static_shared
                                : uint64_t{program.dynamic_shared_offset} + options.dynamic_shared_bytes;
    check_launch(program.info, options, param_bytes, shared);
    std::vector<uint64_t> parameters(param_bytes / 8 + 1, 0);  // aligned
    if (param_bytes > 0) std::memcpy(parameters.data(), params, param_bytes);
    launch.parameters = reinterpret_cast<const uint8_t*>(parameters.data());
    launch.block_threads = static_cast<uint32_t>(options.block.count());
    launch.warps = (launch.block_threads + kLanes - 1) / kLanes;
    launch.shared_bytes = static_cast<uint32_t>(shared);
    launch.regions = options.regions;
    for (const GlobalVariable& g : module.globals())
        launch.regions.push_back({reinterpret_cast<uintptr_t>(g.address), g.bytes, g.name, g.writable});
    std::sort(launch.regions.begin(), launch.regions.end(), [](const Region& a, const Region& b) {
        return a.begin < b.begin || (a.begin == b.begin && a.bytes < b.bytes);
    });
    drop_contained(launch.regions);

    Report result;
    result.kernel = kernel;
    const uint64_t blocks = options.blocks ? options.blocks->size() : options.grid.count();
    std::atomic<uint64_t> next{0};
    std::atomic<bool> stopped{false};
    std::mutex mutex;
    std::exception_ptr error;
    const auto work = [&] {
        try {
            BlockRunner runner(launch);
            for (;;) {
                const uint64_t number = next.fetch_add(1);
                if (number >= blocks || stopped.load()) break;
                const uint64_t index = options.blocks ? (*options.blocks)[number] : number;
                runner.run({static_cast<uint32_t>(index % options.grid.x),
                            static_cast<uint32_t>(index / options.grid.x % options.grid.y),
                            static_cast<uint32_t>(index / options.grid.x / options.grid.y)},
                           index);
                // On a GPU a trap or a hang ends the whole launch.
                if (runner.block().stopped) stopped.store(true);
            }
            const std::lock_guard<std::mutex> lock(mutex);
            collect(runner.block(), module.impl(), result);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex);
            error = std::current_exception();
            stopped.store(true);
        }
    };
    uint64_t threads = options.threads > 0 ? static_cast<uint64_t>(options.threads)
                                           : std::max(1U, std::thread::hardware_concurrency());
    threads = std::min(threads, blocks);
    std::vector<std::thread> pool;
    for (uint64_t i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
    for (std::thread& thread : pool) thread.join();
    if (error) std::rethrow_exception(error);
    std::sort(result.findings.begin(), result.findings.end(), [](const Finding& a, const Finding& b) {
        return std::tie(a.ptx_line, a.kind) < std::tie(b.ptx_line, b.kind);
    });
    result.completed = !stopped.load();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    return result;
}

}  // namespace vlmk::emulator
