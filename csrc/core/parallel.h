// Parallel loops on the OpenMP pool that torch uses too (one libgomp per process).
#pragma once
#include <cstdint>

namespace vlmk {

// Threads that the pool uses unless told otherwise (torch.set_num_threads sets it).
int max_threads();

// Calls body(context, task) for every task in [0, tasks), on at most `threads` threads; tasks are handed out
// dynamically, so results must not depend on which thread runs a task. An exception in a task is rethrown after the
// loop. In a child made by fork() the loop runs on one thread, because the pool's threads do not exist there.
void parallel_for(int64_t tasks, int threads, void (*body)(const void* context, int64_t task), const void* context);

template <class Body>
void parallel_for(int64_t tasks, int threads, const Body& body) {
    parallel_for(
        tasks, threads, [](const void* context, int64_t task) { (*static_cast<const Body*>(context))(task); }, &body);
}

}  // namespace vlmk
