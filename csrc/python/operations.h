#pragma once
#include <pybind11/pybind11.h>

#include "gpu/launch.h"

namespace vlmk::python {

void bind_attention(pybind11::module_& m);
void bind_patch_embed(pybind11::module_& m);
void bind_contrastive(pybind11::module_& m);
void bind_merge_attention(pybind11::module_& m);
void bind_gpu(pybind11::module_& m);

// A launch plan for tests and reports.
pybind11::dict plan_as_dict(const gpu::LaunchPlan& plan);
void bind_emulator(pybind11::module_& m);

}  // namespace vlmk::python
