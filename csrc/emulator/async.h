// cp.async and mbarrier. A copy lands when its thread waits for it and not before: whoever forgets to wait reads what
// was there earlier.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

enum AsyncFlag : uint32_t {
    kSource64 = 1U << kFamily,
    kHasSourceSize = 2U << kFamily,
    kHasIgnore = 4U << kFamily,
    kIgnoreNegated = 8U << kFamily,
    kNoIncrement = 16U << kFamily,
    kReturnsState = 32U << kFamily,
    kParity = 64U << kFamily,
    kDrop = 128U << kFamily,
    kExpectTx = 256U << kFamily,
};

// Copies that have not landed and an arrival that comes after them.
struct DeferredArrival {
    uint32_t warp, lane, group;
};

struct MBarrierState {
    uint32_t expected = 0, pending = 0, phase = 0;
    int64_t bytes = 0;  // transactions that are expected and not complete
    std::vector<DeferredArrival> deferred;
    Clocks clocks{};
    Clocks completed{};  // of the last phase
};

void cp_async(Warp& w, const Op& op);  // [a + value], [b + offset in the list]; c: bytes or predicate
void cp_async_commit(Warp& w, const Op& op);
void cp_async_wait(Warp& w, const Op& op);  // op.value groups may still be pending
void cp_async_wait_all(Warp& w, const Op& op);
void cp_async_mbarrier_arrive(Warp& w, const Op& op);

void mbarrier_init(Warp& w, const Op& op);  // [a], count b
void mbarrier_inval(Warp& w, const Op& op);
void mbarrier_arrive(Warp& w, const Op& op);       // d = state, [a], count or bytes b
void mbarrier_expect_tx(Warp& w, const Op& op);    // [a], bytes b
void mbarrier_complete_tx(Warp& w, const Op& op);  // [a], bytes b
void mbarrier_test(Warp& w, const Op& op);         // predicate d, [a], state or parity b
void mbarrier_pending(Warp& w, const Op& op);      // d, state a

// Everything a thread has in flight, when it exits.
void land_all(Warp& w, uint32_t lane);

}  // namespace vlmk::emulator
