#include "core/parallel.h"

#include <omp.h>
#include <unistd.h>

#include <atomic>
#include <exception>

namespace vlmk {
namespace {

// The process that first ran a parallel loop owns the pool.
bool pool_is_usable() {
    static const pid_t owner = getpid();
    return owner == getpid();
}

}  // namespace

void parallel_for(int64_t tasks, int threads, void (*body)(const void* context, int64_t task), const void* context) {
    if (threads > tasks) threads = static_cast<int>(tasks);
    if (threads <= 1 || omp_in_parallel() || !pool_is_usable()) {
        for (int64_t task = 0; task < tasks; ++task) body(context, task);
        return;
    }
    std::exception_ptr error;
    std::atomic<bool> failed{false};
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
        if (failed.load(std::memory_order_relaxed)) continue;
        try {
            body(context, task);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    }
    if (error) std::rethrow_exception(error);
}

}  // namespace vlmk
