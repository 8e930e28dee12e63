#include "python/operations.h"

namespace vlmk::python {

void bind_attention(pybind11::module_&) {}

}  // namespace vlmk::python
