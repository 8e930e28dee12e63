#include "core/parallel.h"

#include <unistd.h>

#include <atomic>
#include <exception>

// The entry points that compilers emit for OpenMP on GNU's runtime, called by hand: torch brings that runtime
// (libgomp.so.1), and a compiler whose own OpenMP runtime is another one (clang) would add a second pool of threads.
extern "C" {
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
int omp_in_parallel();
int omp_get_max_threads();
}

namespace vlmk {
namespace {

// The process that first ran a parallel loop owns the pool.
bool pool_is_usable() {
    static const pid_t owner = getpid();
    return owner == getpid();
}

// A loop that several threads take tasks from.
struct Loop {
    int64_t tasks;
    void (*body)(const void* context, int64_t task);
    const void* context;
    std::atomic<int64_t> next;
    std::atomic<bool> failed;
    std::exception_ptr error;

    void work() {
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
            if (failed.load(std::memory_order_relaxed)) return;
            try {
                body(context, task);
            } catch (...) {
                if (!failed.exchange(true)) error = std::current_exception();
            }
        }
    }
};

}  // namespace

int max_threads() { return omp_get_max_threads(); }

void parallel_for(int64_t tasks, int threads, void (*body)(const void* context, int64_t task), const void* context) {
    if (threads > tasks) threads = static_cast<int>(tasks);
    if (threads <= 1 || omp_in_parallel() || !pool_is_usable()) {
        for (int64_t task = 0; task < tasks; ++task) body(context, task);
        return;
    }
    Loop loop{tasks, body, context, {0}, {false}, nullptr};
    GOMP_parallel([](void* data) { static_cast<Loop*>(data)->work(); }, &loop, static_cast<unsigned>(threads), 0);
    if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace vlmk
