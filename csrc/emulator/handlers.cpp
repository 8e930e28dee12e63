#include "emulator/handlers.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vlmk::emulator {

#if defined(__x86_64__)
// Clang 14 does not answer this by name.
static bool has_f16c() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

const HandlerTable& handlers() {
#if defined(__x86_64__)
    static const bool wide = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 && has_f16c() &&
                             __builtin_cpu_supports("bmi2") != 0;
    if (wide) return avx2::handlers;
#endif
    return baseline::handlers;
}

}  // namespace vlmk::emulator
