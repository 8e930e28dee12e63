#include "emulator/handlers.h"

namespace vlmk::emulator {

const HandlerTable& handlers() {
#if defined(__x86_64__)
    static const bool wide = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
                             __builtin_cpu_supports("f16c") != 0 && __builtin_cpu_supports("bmi2") != 0;
    if (wide) return avx2::handlers;
#endif
    return baseline::handlers;
}

}  // namespace vlmk::emulator
