#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

enum class AtomicOp : uint8_t { add, min, max, inc, dec, exch, cas, and_, or_, xor_ };

// op.target: AtomicOp and, from bit 8 on, the type; op.d is 1 when the old value is wanted. The list holds op.count
// results, then op.count operands, then those to swap in.
Handler atomic_handler(Type type);

}  // namespace vlmk::emulator
