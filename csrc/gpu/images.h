// The compiled kernels that ship with the package: files <operation>/<name>.ptx and .fatbin.
#pragma once
#include <string>

namespace vlmk::gpu {

// The folder `kernels` beside the module this code is in.
const std::string& image_folder();

// A file's bytes; std::runtime_error says how to get the kernels where there are none.
std::string read_image(const std::string& image, const char* extension);

}  // namespace vlmk::gpu
