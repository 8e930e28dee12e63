#include "emulator/lexer.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace vlmk::emulator {
namespace {

bool begins_word(char c) {
    return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%' || c == '.';
}
bool continues_word(char c) { return begins_word(c) || std::isdigit(static_cast<unsigned char>(c)) != 0; }

}  // namespace

void syntax_error(uint32_t line, const std::string& message) {
    throw std::invalid_argument("PTX line " + std::to_string(line) + ": " + message);
}

std::vector<Token> tokenize(std::string_view text) {
    std::vector<Token> tokens;
    tokens.reserve(text.size() / 4);
    uint32_t line = 1;
    size_t at = 0;
    const auto add = [&](Token::Kind kind, size_t begin, size_t end) {
        tokens.push_back({kind, line, text.substr(begin, end - begin)});
    };
    while (at < text.size()) {
        const char c = text[at];
        if (c == '\n') {
            ++line;
            ++at;
        } else if (std::isspace(static_cast<unsigned char>(c)) != 0 || c == '\0') {
            ++at;
        } else if (text.compare(at, 2, "//") == 0) {
            while (at < text.size() && text[at] != '\n') ++at;
        } else if (text.compare(at, 2, "/*") == 0) {
            const size_t end = text.find("*/", at + 2);
            if (end == std::string_view::npos) syntax_error(line, "comment without end");
            for (; at < end + 2; ++at)
                if (text[at] == '\n') ++line;
        } else if (c == '"') {
            const size_t end = text.find('"', at + 1);
            if (end == std::string_view::npos) syntax_error(line, "string without end");
            add(Token::Kind::string, at + 1, end);
            at = end + 1;
        } else if (begins_word(c)) {
            size_t end = at + 1;
            // Qualifiers such as L2::cache_hint belong to their word, the colon of a label does not.
            while (end < text.size() &&
                   (continues_word(text[end]) ||
                    (text.compare(end, 2, "::") == 0 && end + 2 < text.size() && continues_word(text[end + 2]))))
                end += text[end] == ':' ? 2 : 1;
            add(Token::Kind::word, at, end);
            at = end;
        } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
            size_t end = at + 1;
            const bool plain = !(c == '0' && end < text.size() && std::isalpha(static_cast<unsigned char>(text[end])));
            while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) != 0 || text[end] == '.' ||
                                         (plain && (text[end] == '+' || text[end] == '-') &&
                                          (text[end - 1] == 'e' || text[end - 1] == 'E'))))
                ++end;
            add(Token::Kind::number, at, end);
            at = end;
        } else if (std::strchr("{}[]()<>,;:+-|=@!*&~^/?", c) != nullptr) {
            add(Token::Kind::punctuation, at, at + 1);
            ++at;
        } else {
            syntax_error(line, std::string("unexpected character '") + c + "'");
        }
    }
    tokens.push_back({Token::Kind::end, line, {}});
    return tokens;
}

Number parse_number(const Token& token) {
    const std::string text(token.text);
    Number number;
    char* end = nullptr;
    const auto finish = [&](const char* expected_end) {
        if (end != expected_end) syntax_error(token.line, "not a number: " + text);
        return number;
    };
    const char* limit = text.c_str() + text.size();
    if (text.size() > 1 && text[0] == '0' && (text[1] == 'f' || text[1] == 'F' || text[1] == 'd' || text[1] == 'D')) {
        const bool single = text[1] == 'f' || text[1] == 'F';
        if (text.size() != (single ? 10U : 18U)) syntax_error(token.line, "not a floating-point constant: " + text);
        number.kind = single ? Number::Kind::f32 : Number::Kind::f64;
        number.bits = std::strtoull(text.c_str() + 2, &end, 16);
        return finish(limit);
    }
    const bool hexadecimal = text.size() > 1 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    if (!hexadecimal && text.find_first_of(".eE") != std::string::npos) {
        const double value = std::strtod(text.c_str(), &end);
        number.kind = Number::Kind::f64;
        std::memcpy(&number.bits, &value, 8);
        return finish(limit);
    }
    if (text.back() == 'U') --limit;
    if (text.size() > 1 && text[0] == '0' && (text[1] == 'b' || text[1] == 'B'))
        number.bits = std::strtoull(text.c_str() + 2, &end, 2);
    else
        number.bits = std::strtoull(text.c_str(), &end, 0);
    return finish(limit);
}

}  // namespace vlmk::emulator
