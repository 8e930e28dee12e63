// PTX text cut into tokens.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vlmk::emulator {

struct Token {
    enum class Kind : uint8_t { word, number, string, punctuation, end };
    Kind kind = Kind::end;
    uint32_t line = 0;
    std::string_view text;  // into the PTX text; a string without its quotes
    bool is(char c) const { return kind == Kind::punctuation && text[0] == c; }
    bool is(std::string_view word) const { return kind == Kind::word && text == word; }
};

// The value of a number token: 64 bits as PTX writes them, or the bits of a double.
struct Number {
    uint64_t bits = 0;
    enum class Kind : uint8_t { integer, f32, f64 } kind = Kind::integer;
};

std::vector<Token> tokenize(std::string_view text);
Number parse_number(const Token& token);
[[noreturn]] void syntax_error(uint32_t line, const std::string& message);

}  // namespace vlmk::emulator
