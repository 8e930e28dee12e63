#include "python/operations.h"

namespace vlmk::python {

void bind_contrastive(pybind11::module_&) {}

}  // namespace vlmk::python
