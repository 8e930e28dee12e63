// Launches and what came of them, as Python sees them.
#pragma once
#include <pybind11/pybind11.h>

#include "emulator/emulator.h"
#include "gpu/launch.h"

namespace vlmk::python {

// A launch plan for tests and reports.
pybind11::dict plan_as_dict(const gpu::LaunchPlan& plan);

// What an emulated launch did, as vlmkernels.emulator.Report holds it.
pybind11::dict report_as_dict(const emulator::Report& report);

}  // namespace vlmk::python
