// Errors that become TypeError and NotImplementedError in Python; std::invalid_argument becomes ValueError.
#pragma once
#include <stdexcept>
#include <string>

namespace vlmk {

struct TypeError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct NotImplemented : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

}  // namespace vlmk
