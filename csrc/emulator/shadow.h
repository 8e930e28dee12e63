// What is remembered of shared memory to find races, reads of nothing and copies in flight.
//
// Warps carry vector clocks: a barrier, an mbarrier or a strong access that one warp does and another sees orders what
// came before it. Two accesses to one byte that are not ordered, one of them a write, are a race. Threads of a warp are
// ordered by bar.warp.sync and barriers only, not by running in lockstep.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

constexpr uint32_t kWholeWarp = 32;  // the lane of an access that a warp does together (ldmatrix)

void shadow_read(Warp& w, const Op& op, uint32_t lane, uint32_t offset, uint32_t bytes, bool strong);
// Before the bytes are written: `values` are the new ones. Writing what is there already is no race.
void shadow_write(Warp& w, const Op& op, uint32_t lane, uint32_t offset, uint32_t bytes, const uint8_t* values,
                  bool strong);
// A cp.async has been issued; it lands when its thread has waited.
void shadow_async_begin(Warp& w, const Op& op, uint32_t lane, uint32_t offset, uint32_t bytes);
void shadow_async_end(Warp& w, uint32_t lane, uint32_t offset, uint32_t bytes);

// Ordering. Publishing makes what this warp did so far visible to whoever joins the clocks afterwards.
void publish(Warp& w, Clocks& clocks);
void join(Warp& w, const Clocks& clocks);
void synchronise_lanes(Warp& w);

}  // namespace vlmk::emulator
