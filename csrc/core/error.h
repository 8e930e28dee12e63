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

namespace detail {
inline const std::string& text_of(const std::string& text) { return text; }
inline const char* text_of(const char* text) { return text; }
template <class Number>
std::string text_of(Number number) {
    return std::to_string(number);
}
}  // namespace detail

// Throws the message, texts and numbers in a row, unless the condition holds; it is put together only then.
template <class... Parts>
void require(bool condition, const Parts&... message) {
    if (condition) return;
    std::string text;
    ((text += detail::text_of(message)), ...);
    throw std::invalid_argument(text);
}

}  // namespace vlmk
