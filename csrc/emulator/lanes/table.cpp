#include "emulator/handlers.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {

Handler integer(IntegerOp op, Type type);
Handler compare(Type type, Type result);
Handler floating(FloatOp op, Type type, bool flush);
Handler half(FloatOp op, Type type);
Handler convert(Type to, Type from, Rounding rounding, bool integral);
Handler move(Type type);
Handler select(Type type);
Handler mma(Type a, Type accumulator);

const HandlerTable handlers = {integer, compare, floating, half, convert, move, select, mma};

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
