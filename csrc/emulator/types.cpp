#include "emulator/types.h"

namespace vlmk::emulator {
namespace {

struct Entry {
    const char* name;
    uint32_t size;
    Type bits;
};
// In the order of the enumeration.
constexpr Entry kTypes[] = {
    {"none", 0, Type::none},  {"pred", 0, Type::pred},  {"b8", 1, Type::b8},      {"u8", 1, Type::b8},
    {"s8", 1, Type::b8},      {"b16", 2, Type::b16},    {"u16", 2, Type::b16},    {"s16", 2, Type::b16},
    {"b32", 4, Type::b32},    {"u32", 4, Type::b32},    {"s32", 4, Type::b32},    {"b64", 8, Type::b64},
    {"u64", 8, Type::b64},    {"s64", 8, Type::b64},    {"b128", 16, Type::b128}, {"f16", 2, Type::b16},
    {"f16x2", 4, Type::b32},  {"bf16", 2, Type::b16},   {"bf16x2", 4, Type::b32}, {"tf32", 4, Type::b32},
    {"f32", 4, Type::b32},    {"f64", 8, Type::b64},    {"e4m3", 1, Type::b8},    {"e5m2", 1, Type::b8},
    {"e4m3x2", 2, Type::b16}, {"e5m2x2", 2, Type::b16}, {"u16x2", 4, Type::b32},  {"s16x2", 4, Type::b32},
};
const Entry& entry(Type type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

Type parse_type(std::string_view word) {
    for (size_t i = 1; i < sizeof(kTypes) / sizeof(kTypes[0]); ++i)
        if (word == kTypes[i].name) return static_cast<Type>(i);
    return Type::none;
}
const char* name(Type type) { return entry(type).name; }
uint32_t size_of(Type type) { return entry(type).size; }
Type bits_type(Type type) { return entry(type).bits; }
bool is_signed(Type type) {
    return type == Type::s8 || type == Type::s16 || type == Type::s32 || type == Type::s64 || type == Type::s16x2;
}
bool is_float(Type type) { return type >= Type::f16 && type <= Type::f64; }

}  // namespace vlmk::emulator
