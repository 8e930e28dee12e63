// Runs the threads of a warp.
//
// Every thread has a program counter of its own. Of the threads that can run, those at the lowest position run
// together; positions are ordered so that this makes diverged threads meet at the immediate post-dominator of their
// branch (see flow.h). Threads that spin while others of their warp wait give way from time to time. Instructions that
// need several threads (shfl.sync, mma.sync, bar.warp.sync, ...) hold those that come first until the others are there.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

// Until `budget` instructions are done or nothing in the warp can go on.
void run_warp(Warp& w, uint64_t budget);
// For a warp that waits for lanes that will not come: says so, and lets those go on that are there. False where
// nothing waits like that.
bool force_waiting(Warp& w);

}  // namespace vlmk::emulator
