// The element types of PTX.
#pragma once
#include <cstdint>
#include <string_view>

namespace vlmk::emulator {

enum class Type : uint8_t {
    none,
    pred,
    b8,
    u8,
    s8,
    b16,
    u16,
    s16,
    b32,
    u32,
    s32,
    b64,
    u64,
    s64,
    b128,
    f16,
    f16x2,
    bf16,
    bf16x2,
    tf32,
    f32,
    f64,
    e4m3,
    e5m2,
    e4m3x2,
    e5m2x2,
    u16x2,
    s16x2,
};

Type parse_type(std::string_view word);  // without the dot; none where it is no type
const char* name(Type type);
uint32_t size_of(Type type);  // bytes in memory; predicates have none
bool is_signed(Type type);
bool is_float(Type type);  // f16 ... f64, packed ones included
// The type of the same width without a meaning: b32 for f32, s32, f16x2, ...
Type bits_type(Type type);

}  // namespace vlmk::emulator
