// What a return code of the driver means for the person who reads it.
#pragma once
#include <stdexcept>
#include <string>

namespace vlmk::gpu {

struct DriverError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What to do about a return code of the driver API; empty if there is nothing to say.
std::string remedy(int code);

}  // namespace vlmk::gpu
