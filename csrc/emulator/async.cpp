#include "emulator/async.h"

#include <algorithm>

#include "emulator/memory.h"
#include "emulator/shadow.h"

namespace vlmk::emulator {
namespace {

void land(Warp& w, uint32_t lane, const PendingCopy& copy) {
    Block& block = *w.block;
    uint8_t* to = block.shared + copy.destination;
    if (copy.source_bytes == 16) {
        std::memcpy(to, copy.source, 16);
    } else {
        if (copy.source_bytes > 0) std::memcpy(to, copy.source, copy.source_bytes);
        std::memset(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
    }
    if (block.checks) shadow_async_end(w, lane, copy.destination, copy.bytes);
}

void land_until(Warp& w, uint32_t lane, uint32_t group) {
    std::vector<PendingCopy>& copies = w.copies[lane];
    size_t done = 0;
    while (done < copies.size() && copies[done].group <= group) land(w, lane, copies[done++]);
    if (done > 0) copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(done));
}

MBarrierState* find(Warp& w, const Op& op, uint32_t lane, uint64_t& address) {
    address = (op.flags & kAddress64) != 0 ? row<uint64_t>(w, op.a)[lane] + op.value
                                           : uint64_t{static_cast<uint32_t>(row<uint32_t>(w, op.a)[lane] + op.value)};
    if (op.space == AddressSpace::generic) address -= kSharedWindow;
    if (!resolve_shared(w, op, lane, address, 8)) return nullptr;
    auto found = w.block->mbarriers.find(static_cast<uint32_t>(address));
    if (found != w.block->mbarriers.end()) return &found->second;
    report(w, op, FindingKind::uninitialised_shared, lane,
           "there is no mbarrier at shared address " + std::to_string(address) + ": mbarrier.init is missing");
    return nullptr;
}

void check_phase(Warp& w, MBarrierState& m) {
    w.block->failed_waits = 0;
    if (m.pending != 0 || m.bytes != 0) return;
    ++m.phase;
    m.pending = m.expected;
    m.completed = m.clocks;
    ++w.block->traffic.barriers;
}

void arrive(Warp& w, const Op& op, uint32_t lane, MBarrierState& m, uint32_t count) {
    if (count > m.pending) {
        report(w, op, FindingKind::barrier_divergence, lane,
               "arrives " + std::to_string(count) + " times where the mbarrier waits for " + std::to_string(m.pending));
        count = m.pending;
    }
    publish(w, m.clocks);
    m.pending -= count;
    check_phase(w, m);
}

}  // namespace

void cp_async(Warp& w, const Op& op) {
    Block& block = *w.block;
    const uint32_t bytes = op.bytes;
    Access to;
    resolve(w, op, {op.space, op.a, (op.flags & kAddress64) != 0, op.value}, AccessKind::store, w.active, bytes, bytes,
            to);
    uint32_t sizes[kLanes];
    for (uint32_t left = to.in_shared; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        sizes[lane] = bytes;
        if ((op.flags & kHasSourceSize) != 0) sizes[lane] = std::min(row<uint32_t>(w, op.c)[lane], bytes);
        if ((op.flags & kHasIgnore) != 0 &&
            ((w.predicates[op.c] >> lane & 1) != 0) != ((op.flags & kIgnoreNegated) != 0))
            sizes[lane] = 0;
    }
    const Address source{
        AddressSpace::global, op.b, (op.flags & kSource64) != 0,
        w.block->program->operands[op.list] | static_cast<uint64_t>(w.block->program->operands[op.list + 1]) << 32};
    Access from;
    uint32_t all = 0;
    for (uint32_t left = to.in_shared; left != 0;) {  // lanes that read equally much at a time
        const uint32_t size = sizes[__builtin_ctz(left)];
        uint32_t lanes = 0;
        for (uint32_t others = left; others != 0; others &= others - 1)
            if (sizes[__builtin_ctz(others)] == size) lanes |= others & (0U - others);
        left &= ~lanes;
        uint32_t readable = lanes;
        if (size > 0) {
            resolve(w, op, source, AccessKind::async_read, lanes, size, bytes, from);
            readable = from.lanes;
            all |= readable;
        }
        for (uint32_t others = lanes; others != 0; others &= others - 1) {
            const auto lane = static_cast<uint32_t>(__builtin_ctz(others));
            const bool reads = (readable >> lane & 1) != 0 && size > 0;
            if (block.checks) shadow_async_begin(w, op, lane, to.shared[lane], bytes);
            w.copies[lane].push_back({reads ? from.pointer[lane] : nullptr, to.shared[lane], w.copy_groups[lane] + 1,
                                      block.op_index(op), static_cast<uint8_t>(bytes),
                                      static_cast<uint8_t>(reads ? size : 0)});
        }
    }
    count_async(block, from, all, sizes);
}

void cp_async_commit(Warp& w, const Op&) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) ++w.copy_groups[__builtin_ctz(left)];
}
void cp_async_wait(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        if (w.copy_groups[lane] > op.value) land_until(w, lane, w.copy_groups[lane] - static_cast<uint32_t>(op.value));
    }
}
void cp_async_wait_all(Warp& w, const Op&) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) land_all(w, static_cast<uint32_t>(__builtin_ctz(left)));
}
void land_all(Warp& w, uint32_t lane) { land_until(w, lane, ~0U); }

void cp_async_mbarrier_arrive(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint64_t address;
        MBarrierState* m = find(w, op, lane, address);
        if (m == nullptr) continue;
        if ((op.flags & kNoIncrement) == 0) ++m->pending;
        // What follows belongs to later groups, so the arrival can tell its copies by their number.
        m->deferred.push_back({w.index, lane, ++w.copy_groups[lane]});
    }
}

void mbarrier_init(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint64_t address = (op.flags & kAddress64) != 0
                               ? row<uint64_t>(w, op.a)[lane] + op.value
                               : uint64_t{static_cast<uint32_t>(row<uint32_t>(w, op.a)[lane] + op.value)};
        if (op.space == AddressSpace::generic) address -= kSharedWindow;
        if (!resolve_shared(w, op, lane, address, 8)) continue;
        MBarrierState m;
        m.expected = m.pending = row<uint32_t>(w, op.b)[lane];
        const uint64_t word = m.expected;
        const auto offset = static_cast<uint32_t>(address);
        if (w.block->checks) shadow_write(w, op, lane, offset, 8, reinterpret_cast<const uint8_t*>(&word), false);
        std::memcpy(w.block->shared + offset, &word, 8);
        publish(w, m.clocks);
        w.block->mbarriers[offset] = m;
    }
}
void mbarrier_inval(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        uint64_t address;
        if (find(w, op, static_cast<uint32_t>(__builtin_ctz(left)), address) != nullptr)
            w.block->mbarriers.erase(static_cast<uint32_t>(address));
    }
}
void mbarrier_arrive(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint64_t address;
        MBarrierState* m = find(w, op, lane, address);
        if (m == nullptr) continue;
        const uint32_t operand = row<uint32_t>(w, op.b)[lane];
        if ((op.flags & kReturnsState) != 0)
            result_row<uint64_t>(w, op.d)[lane] = static_cast<uint64_t>(m->phase) << 32 | m->pending;
        if ((op.flags & kExpectTx) != 0) m->bytes += operand;
        const uint32_t count = (op.flags & kExpectTx) != 0 ? 1 : operand;
        if ((op.flags & kDrop) != 0) m->expected -= std::min(m->expected, count);
        arrive(w, op, lane, *m, count);
    }
}
void mbarrier_expect_tx(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint64_t address;
        if (MBarrierState* m = find(w, op, lane, address)) m->bytes += row<uint32_t>(w, op.b)[lane];
    }
}
void mbarrier_complete_tx(Warp& w, const Op& op) {
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint64_t address;
        MBarrierState* m = find(w, op, lane, address);
        if (m == nullptr) continue;
        m->bytes -= row<uint32_t>(w, op.b)[lane];
        publish(w, m->clocks);
        check_phase(w, *m);
    }
}
void mbarrier_test(Warp& w, const Op& op) {
    uint32_t result = 0;
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint64_t address;
        MBarrierState* m = find(w, op, lane, address);
        if (m == nullptr) {
            result |= 1U << lane;  // so that a program in error ends
            continue;
        }
        const uint64_t wanted =
            (op.flags & kParity) != 0 ? row<uint32_t>(w, op.b)[lane] : row<uint64_t>(w, op.b)[lane] >> 32;
        if ((m->phase & 1) != (wanted & 1)) {
            result |= 1U << lane;
            if (w.block->checks) join(w, m->completed);
            continue;
        }
        ++w.block->failed_waits;
        // Copies that announce themselves here are as late as they can be: the test that finds them pending fails, the
        // next one sees them done.
        std::vector<DeferredArrival> deferred;
        deferred.swap(m->deferred);
        for (const DeferredArrival& d : deferred) {
            Warp& other = w.block->warps[d.warp];
            land_until(other, d.lane, d.group);
            arrive(other, op, d.lane, *m, 1);
        }
    }
    set_predicate(w, op.d, result);
}
void mbarrier_pending(Warp& w, const Op& op) {
    const auto* state = row<uint64_t>(w, op.a);
    uint32_t* d = result_row<uint32_t>(w, op.d);
    each_lane(w.active, [=](uint32_t i) { d[i] = static_cast<uint32_t>(state[i]); });
}

}  // namespace vlmk::emulator
