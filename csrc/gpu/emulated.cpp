#include "gpu/emulated.h"

#include <map>
#include <mutex>
#include <stdexcept>

#include "gpu/images.h"

namespace vlmk::gpu {
namespace {

struct State {
    std::mutex mutex;
    EmulationSettings settings;
    BlockSelection selection;
    ReportListener listener;
    std::map<std::string, std::shared_ptr<emulator::Module>> modules;
};

State& state() {
    static State* one = new State();  // kept at exit: it may hold objects of an interpreter that has ended
    return *one;
}

std::shared_ptr<emulator::Module> module_of(const std::string& image) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    std::shared_ptr<emulator::Module>& module = state().modules[image];
    if (module == nullptr) module = emulator::load_module(read_image(image, ".ptx"), image);
    return module;
}

template <class Field>
Field copy_of(Field State::* field) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    return state().*field;
}

emulator::Dim3 convert(const Dim3& d) { return {d.x, d.y, d.z}; }

}  // namespace

void set_emulation(const EmulationSettings& settings) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    state().settings = settings;
}

EmulationSettings emulation() {
    const std::lock_guard<std::mutex> lock(state().mutex);
    return state().settings;
}

void set_block_selection(BlockSelection selection) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    std::swap(state().selection, selection);
}

void set_report_listener(ReportListener listener) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    std::swap(state().listener, listener);
}

void run_emulated(const LaunchPlan& plan, std::vector<emulator::Region> regions, int threads) {
    check(plan);
    const std::shared_ptr<emulator::Module> module = module_of(plan.image);
    const EmulationSettings settings = emulation();
    emulator::LaunchOptions options;
    options.grid = convert(plan.grid);
    options.block = convert(plan.block);
    options.dynamic_shared_bytes = plan.shared_bytes;
    options.schedule = settings.schedule;
    options.seed = settings.seed;
    options.checks = settings.checks;
    options.counters = settings.counters;
    options.threads = threads;
    options.regions = std::move(regions);
    if (const BlockSelection selection = copy_of(&State::selection)) options.blocks = selection(plan);
    const emulator::Report report =
        emulator::launch(*module, plan.kernel, plan.parameters.data(), plan.parameters.size(), options);

    if (const ReportListener listener = copy_of(&State::listener)) listener(plan, report);
    if (report.completed && report.findings.empty()) return;
    std::string message = "the emulator stopped " + plan.kernel;
    for (const emulator::Finding& finding : report.findings) message += "\n" + finding.text();
    throw std::runtime_error(message);
}

}  // namespace vlmk::gpu
