#pragma once
#include "emulator/handlers.h"

namespace vlmk::emulator {

// A conversion of any type to any other. In op.value.
struct ConvertPlan {
    Type to = Type::none, from = Type::none;
    Rounding rounding = Rounding::none;
    bool integral = false;  // float to float, rounded to an integer value
    bool flush = false, saturate = false, finite_saturation = false;
    uint8_t from_bytes = 0, to_bytes = 0;  // of the registers
};
uint64_t pack(const ConvertPlan& plan);

void convert_scalar(Warp& w, const Op& op);  // d, a
void convert_two(Warp& w, const Op& op);     // d, a above b: two scalars to a packed pair
void convert_pair(Warp& w, const Op& op);    // d, a: a packed pair to another
void convert_pack(Warp& w, const Op& op);    // d, a, b, c: cvt.pack.sat

}  // namespace vlmk::emulator
