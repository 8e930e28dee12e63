#include "python/operations.h"

namespace vlmk::python {

void bind_patch_embed(pybind11::module_&) {}

}  // namespace vlmk::python
