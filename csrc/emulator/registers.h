// Which rows of the register file the registers of a kernel use. Registers whose lives do not overlap share one: a
// warp's file then fits the nearest cache.
#pragma once
#include "emulator/flow.h"

namespace vlmk::emulator {

struct RegisterPlan {
    std::vector<uint32_t> place;  // by register: byte offset of its row, or the number of its predicate
    uint32_t bytes = 0, predicates = 0;
    uint32_t pressure = 0;  // 32-bit registers at the most live point
};

uint32_t row_bytes(Type type);  // of a register of this type

RegisterPlan plan_registers(const Flow& flow, uint32_t first_byte);

}  // namespace vlmk::emulator
