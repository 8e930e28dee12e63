#include "bench/ceilings.h"

#include <chrono>
#include <cstring>
#include <vector>

#include "core/parallel.h"

namespace vlmk {
namespace {

CeilingWork work(Ceiling kind, int64_t rounds) {
    switch (kind) {
        case Ceiling::bf16_dot:
            VLMK_CALL_ACTIVE_ISA(bf16_dot_work, rounds)
        case Ceiling::bf16_tiles:
            VLMK_CALL_ACTIVE_ISA(bf16_tiles_work, rounds)
        case Ceiling::exp2:
            VLMK_CALL_ACTIVE_ISA(exp2_work, rounds)
        case Ceiling::multiply_add:
            break;
    }
    VLMK_CALL_ACTIVE_ISA(multiply_add_work, rounds)
}

CeilingWork read(const float* from, int64_t count) { VLMK_CALL_ACTIVE_ISA(read_work, from, count) }

// One task a thread; the witnesses go to a volatile.
template <class Task>
CeilingRate run(int threads, const Task& task) {
    std::vector<CeilingWork> done(static_cast<size_t>(threads));
    const auto started = std::chrono::steady_clock::now();
    parallel_for(threads, threads, [&](int64_t thread) { done[static_cast<size_t>(thread)] = task(thread); });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - started;
    CeilingRate rate{0.0, taken.count()};
    volatile float witness = 0.0f;
    for (const CeilingWork& one : done) {
        rate.operations += one.operations;
        witness = witness + one.witness;
    }
    return rate;
}

}  // namespace

CeilingRate compute_ceiling(Ceiling kind, int64_t rounds, int threads) {
    return run(threads, [&](int64_t) { return work(kind, rounds); });
}

CeilingRate read_ceiling(const float* from, int64_t count, int threads) {
    const int64_t share = count / threads;
    return run(threads, [&](int64_t thread) { return read(from + thread * share, share); });
}

CeilingRate copy_ceiling(float* to, const float* from, int64_t count, int threads) {
    const int64_t share = count / threads;
    return run(threads, [&](int64_t thread) {
        float* target = to + thread * share;
        std::memcpy(target, from + thread * share, static_cast<size_t>(share) * sizeof(float));
        return CeilingWork{2.0 * static_cast<double>(share) * sizeof(float), target[share - 1]};
    });
}

}  // namespace vlmk
