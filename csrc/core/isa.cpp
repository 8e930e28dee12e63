#include "core/isa.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vlmk {
namespace {

#if defined(__x86_64__) && !defined(VLMK_EMULATE_AVX512)
// The processor has tile registers, and the system lets this process use them (Linux asks every process to ask).
bool tiles_usable() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kBf16) == 0 || (edx & kTiles) == 0) return false;
#if defined(SYS_arch_prctl)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}
#endif

bool machine_has(Isa isa) {
    if (isa == Isa::baseline) return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx2) return avx2;
#if defined(VLMK_EMULATE_AVX512)
    return avx2;
#else
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (isa == Isa::avx512) return avx512;
    const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (isa == Isa::avx512_bf16) return avx512_bf16;
    return avx512_bf16 && tiles_usable();
#endif
#else
    return false;
#endif
}

std::vector<Isa> detect() {
    std::vector<Isa> found;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16})
        if (machine_has(isa)) found.push_back(isa);
    return found;
}

Isa find_available(const std::string& wanted) {
    std::string choices;
    for (Isa isa : available_isas()) {
        if (wanted == name(isa)) return isa;
        choices += std::string(choices.empty() ? "" : ", ") + name(isa);
    }
    throw std::invalid_argument("instruction set '" + wanted + "' is not available; choose one of: " + choices);
}

std::atomic<Isa>& chosen() {
    static std::atomic<Isa> isa{[] {
        const char* forced = std::getenv("VLMKERNELS_CPU_ISA");
        return forced != nullptr && *forced != 0 ? find_available(forced) : available_isas().back();
    }()};
    return isa;
}

}  // namespace

const char* name(Isa isa) {
    switch (isa) {
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_bf16:
            return "avx512_bf16";
        case Isa::amx_bf16:
            return "amx_bf16";
        case Isa::baseline:
            break;
    }
    return "baseline";
}

const std::vector<Isa>& available_isas() {
    static const std::vector<Isa> isas = detect();
    return isas;
}

Isa active_isa() { return chosen().load(std::memory_order_relaxed); }

void set_active_isa(const std::string& wanted) { chosen().store(find_available(wanted)); }

}  // namespace vlmk
