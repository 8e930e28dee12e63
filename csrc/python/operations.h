#pragma once
#include <pybind11/pybind11.h>

namespace vlmk::python {

void bind_attention(pybind11::module_& m);
void bind_patch_embed(pybind11::module_& m);
void bind_contrastive(pybind11::module_& m);
void bind_bench(pybind11::module_& m);
void bind_merge_attention(pybind11::module_& m);
void bind_gpu(pybind11::module_& m);
void bind_emulator(pybind11::module_& m);

}  // namespace vlmk::python
