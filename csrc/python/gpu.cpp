// The launch layer as Python sees it: the driver, its devices, and how the emulator runs.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>

#include "gpu/driver.h"
#include "gpu/emulated.h"
#include "gpu/images.h"
#include "python/operations.h"
#include "python/reports.h"

namespace py = pybind11;

namespace vlmk::python {
namespace {

py::tuple as_tuple(const gpu::Dim3& d) { return py::make_tuple(d.x, d.y, d.z); }

py::dict devices() {
    gpu::Driver& driver = gpu::Driver::instance();
    py::list found;
    for (int i = 0; i < driver.device_count(); ++i) {
        const gpu::DeviceInfo info = driver.device_info(i);
        py::dict one;
        one["name"] = info.name;
        one["compute_capability"] = py::make_tuple(info.major, info.minor);
        one["multiprocessors"] = info.multiprocessors;
        one["max_shared_bytes"] = info.max_shared_bytes;
        one["pageable_memory"] = info.pageable_memory;
        found.append(one);
    }
    py::dict all;
    all["cuda_version"] = py::make_tuple(driver.version() / 1000, driver.version() % 1000 / 10);
    all["devices"] = found;
    return all;
}

// Queues a plan as plan_as_dict describes it, its pointers being the device's, and returns.
void launch(const py::dict& plan, int device, uint64_t stream) {
    const auto dim3 = [&](const char* key) {
        const auto [x, y, z] = plan[key].cast<std::tuple<uint32_t, uint32_t, uint32_t>>();
        return gpu::Dim3{x, y, z};
    };
    const auto text = plan["parameters"].cast<std::string>();
    gpu::LaunchPlan made{plan["image"].cast<std::string>(),
                         plan["kernel"].cast<std::string>(),
                         dim3("grid"),
                         dim3("block"),
                         plan["shared_bytes"].cast<uint32_t>(),
                         {}};
    made.parameters.resize(text.size());
    std::memcpy(made.parameters.data(), text.data(), text.size());
    const py::gil_scoped_release release;
    gpu::Driver::instance().launch(made, device, reinterpret_cast<void*>(stream));
}

void set_emulation(const std::string& schedule, uint64_t seed, bool checks, bool counters, int shared_bytes,
                   int multiprocessors) {
    if (schedule != "round_robin" && schedule != "random")
        throw std::invalid_argument("schedule must be round_robin or random, got " + schedule);
    gpu::set_emulation({schedule == "random" ? emulator::Schedule::random : emulator::Schedule::round_robin,
                        seed,
                        checks,
                        counters,
                        {shared_bytes, multiprocessors}});
}

// Python functions are called, copied and dropped by threads that do not hold the GIL.
std::shared_ptr<py::object> share(py::object function) {
    return {new py::object(std::move(function)), [](py::object* last) {
                const py::gil_scoped_acquire acquire;
                delete last;
            }};
}

// The selection is called as f(plan) and returns indices of blocks, or None for all.
void set_block_selection(py::object selection) {
    if (selection.is_none()) return gpu::set_block_selection({});
    gpu::set_block_selection([shared = share(std::move(selection))](const gpu::LaunchPlan& plan) {
        const py::gil_scoped_acquire acquire;
        return (*shared)(plan_as_dict(plan)).cast<std::optional<std::vector<uint64_t>>>();
    });
}

// The listener is called as f(plan, report).
void set_report_listener(py::object listener) {
    if (listener.is_none()) return gpu::set_report_listener({});
    gpu::set_report_listener(
        [shared = share(std::move(listener))](const gpu::LaunchPlan& plan, const emulator::Report& report) {
            const py::gil_scoped_acquire acquire;
            (*shared)(plan_as_dict(plan), report_as_dict(report));
        });
}

}  // namespace

py::dict plan_as_dict(const gpu::LaunchPlan& plan) {
    gpu::check(plan);
    py::dict d;
    d["image"] = plan.image;
    d["kernel"] = plan.kernel;
    d["grid"] = as_tuple(plan.grid);
    d["block"] = as_tuple(plan.block);
    d["shared_bytes"] = plan.shared_bytes;
    d["parameters"] = py::bytes(reinterpret_cast<const char*>(plan.parameters.data()), plan.parameters.size());
    return d;
}

void bind_gpu(py::module_& m) {
    py::register_exception<gpu::DriverError>(m, "DriverError", PyExc_RuntimeError);
    m.def("cuda_devices", &devices);
    m.def("cuda_launch", &launch);
    m.def("image_folder", &gpu::image_folder);
    m.def("set_emulation", &set_emulation);
    m.def("set_block_selection", &set_block_selection);
    m.def("set_report_listener", &set_report_listener);
}

}  // namespace vlmk::python
