#include "emulator/emulator.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/error.h"
#include "python/operations.h"
#include "python/reports.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

using emulator::Module;

emulator::Dim3 dim3(const std::array<uint32_t, 3>& d) { return {d[0], d[1], d[2]}; }
py::tuple triple(const emulator::Dim3& d) { return py::make_tuple(d.x, d.y, d.z); }

py::list kernels(const Module& module) {
    py::list result;
    for (const emulator::KernelInfo& info : module.kernels()) {
        py::list parameters;
        for (const emulator::Parameter& p : info.parameters)
            parameters.append(py::make_tuple(p.name, p.type, p.offset, p.size, p.align));
        py::dict kernel;
        kernel["name"] = info.name;
        kernel["parameters"] = parameters;
        kernel["parameter_bytes"] = info.parameter_bytes;
        kernel["static_shared_bytes"] = info.static_shared_bytes;
        kernel["max_threads"] = info.max_threads;
        kernel["registers"] = info.registers;
        result.append(kernel);
    }
    return result;
}

py::dict globals(const Module& module) {
    py::dict result;
    for (const emulator::GlobalVariable& g : module.globals())
        result[py::str(g.name)] = py::make_tuple(reinterpret_cast<uintptr_t>(g.address), g.bytes, g.writable);
    return result;
}

py::dict traffic(const emulator::GlobalTraffic& t) {
    py::dict d;
    d["bytes"] = t.bytes;
    d["sectors"] = t.sectors;
    d["ideal_sectors"] = t.ideal_sectors;
    return d;
}
py::dict traffic(const emulator::SharedTraffic& t) {
    py::dict d;
    d["bytes"] = t.bytes;
    d["wavefronts"] = t.wavefronts;
    d["ideal_wavefronts"] = t.ideal_wavefronts;
    return d;
}

py::dict counters(const emulator::Counters& c) {
    py::dict classes;
    for (size_t i = 0; i < emulator::kInstructionClasses; ++i)
        classes[emulator::name(static_cast<emulator::InstructionClass>(i))] = c.by_class[i];
    py::dict d;
    d["warp_instructions"] = c.warp_instructions;
    d["thread_instructions"] = c.thread_instructions;
    d["by_class"] = classes;
    d["tensor_flops"] = c.tensor_flops;
    d["global_load"] = traffic(c.global_load);
    d["global_store"] = traffic(c.global_store);
    d["global_async"] = traffic(c.global_async);
    d["global_atomic"] = traffic(c.global_atomic);
    d["shared_load"] = traffic(c.shared_load);
    d["shared_store"] = traffic(c.shared_store);
    d["branches"] = c.branches;
    d["divergent_branches"] = c.divergent_branches;
    d["partial_instructions"] = c.partial_instructions;
    d["barriers"] = c.barriers;
    d["blocks"] = c.blocks;
    d["warps"] = c.warps;
    return d;
}

py::dict launch(const Module& module, const std::string& kernel, const py::bytes& params,
                const std::array<uint32_t, 3>& grid, const std::array<uint32_t, 3>& block, uint32_t shared_bytes,
                const std::string& schedule, uint64_t seed, bool checks, bool counting, int threads,
                const std::vector<std::tuple<uintptr_t, size_t, std::string, bool>>& regions) {
    emulator::LaunchOptions options;
    options.grid = dim3(grid);
    options.block = dim3(block);
    options.dynamic_shared_bytes = shared_bytes;
    require(schedule == "round_robin" || schedule == "random",
            "schedule must be 'round_robin' or 'random', got '" + schedule + "'");
    options.schedule = schedule == "random" ? emulator::Schedule::random : emulator::Schedule::round_robin;
    options.seed = seed;
    options.checks = checks;
    options.counters = counting;
    options.threads = threads;
    for (const auto& [begin, bytes, name, writable] : regions)
        options.regions.push_back({begin, bytes, name, writable});
    const std::string bytes = params;
    emulator::Report report;
    {
        const py::gil_scoped_release release;
        report = emulator::launch(module, kernel, bytes.data(), bytes.size(), options);
    }
    return report_as_dict(report);
}

}  // namespace

py::dict report_as_dict(const emulator::Report& report) {
    py::list findings;
    for (const emulator::Finding& f : report.findings) {
        py::dict finding;
        finding["kind"] = emulator::name(f.kind);
        finding["kernel"] = f.kernel;
        finding["ptx_line"] = f.ptx_line;
        finding["instruction"] = f.instruction;
        finding["source_file"] = f.source_file;
        finding["source_line"] = f.source_line;
        finding["message"] = f.message;
        finding["block"] = triple(f.block);
        finding["thread"] = triple(f.thread);
        finding["occurrences"] = f.occurrences;
        finding["text"] = f.text();
        findings.append(finding);
    }
    py::dict result;
    result["kernel"] = report.kernel;
    result["findings"] = findings;
    result["counters"] = counters(report.counters);
    result["seconds"] = report.seconds;
    result["completed"] = report.completed;
    result["summary"] = report.summary();
    return result;
}

void bind_emulator(py::module_& m) {
    py::class_<Module, std::shared_ptr<Module>>(m, "EmulatorModule", py::module_local())
        .def_property_readonly("name", &Module::name)
        .def("kernels", &kernels)
        .def("globals", &globals)
        .def("launch", &launch);
    m.def("emulator_load", [](std::string ptx, std::string name) {
        const py::gil_scoped_release release;
        return emulator::load_module(std::move(ptx), std::move(name));
    });
}

}  // namespace vlmk::python
