#include "emulator/warp.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "emulator/memory.h"
#include "emulator/shadow.h"

namespace vlmk::emulator {
namespace {

uint32_t first_lane(uint32_t lanes) { return static_cast<uint32_t>(__builtin_ctz(lanes)); }

uint64_t value_of(const Warp& w, const Op& op, uint32_t lane) {
    return op.bytes == 8 ? row<uint64_t>(w, op.a)[lane] : row<uint32_t>(w, op.a)[lane];
}

uint32_t poison32() { return kPoison | static_cast<uint32_t>(kPoison) << 16; }

}  // namespace

void shfl(Warp& w, const Op& op) {
    const auto *a = row<uint32_t>(w, op.a), *b = row<uint32_t>(w, op.b), *c = row<uint32_t>(w, op.c);
    const auto kind = static_cast<Shuffle>(op.value);
    uint32_t result[kLanes], predicate = 0;
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const uint32_t lane = first_lane(left);
        const uint32_t n = b[lane] & 31, clamp = c[lane] & 31, segment = c[lane] >> 8 & 31;
        const uint32_t last = (lane & segment) | (clamp & ~segment), first = lane & segment;
        int32_t from = 0;
        bool valid = false;
        switch (kind) {
            case Shuffle::up:
                from = static_cast<int32_t>(lane) - static_cast<int32_t>(n);
                valid = from >= static_cast<int32_t>(last);
                break;
            case Shuffle::down:
                from = static_cast<int32_t>(lane + n);
                valid = from <= static_cast<int32_t>(last);
                break;
            case Shuffle::bfly:
                from = static_cast<int32_t>(lane ^ n);
                valid = from <= static_cast<int32_t>(last);
                break;
            case Shuffle::idx:
                from = static_cast<int32_t>(first | (n & ~segment));
                valid = from <= static_cast<int32_t>(last);
                break;
        }
        if (!valid) from = static_cast<int32_t>(lane);
        predicate |= static_cast<uint32_t>(valid) << lane;
        if ((w.active >> from & 1) != 0) {
            result[lane] = a[from];
        } else {
            report(w, op, FindingKind::warp_mask, lane,
                   "reads from lane " + std::to_string(from) + ", which does not take part");
            result[lane] = poison32();
        }
    }
    uint32_t* d = result_row<uint32_t>(w, op.d);
    for (uint32_t left = w.active; left != 0; left &= left - 1) d[first_lane(left)] = result[first_lane(left)];
    set_predicate(w, op.count, predicate);
}

void vote(Warp& w, const Op& op) {
    uint32_t p = w.predicates[op.a];
    if ((op.flags & kSourceNegated) != 0) p = ~p;
    p &= w.active;
    switch (static_cast<Vote>(op.value)) {
        case Vote::all:
            set_predicate(w, op.d, p == w.active ? kAllLanes : 0);
            break;
        case Vote::any:
            set_predicate(w, op.d, p != 0 ? kAllLanes : 0);
            break;
        case Vote::uni:
            set_predicate(w, op.d, p == 0 || p == w.active ? kAllLanes : 0);
            break;
        case Vote::ballot: {
            uint32_t* d = result_row<uint32_t>(w, op.d);
            each_lane(w.active, [=](uint32_t i) { d[i] = p; });
            break;
        }
    }
}

void match_any(Warp& w, const Op& op) {
    uint32_t result[kLanes];
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        const uint32_t lane = first_lane(left);
        result[lane] = 0;
        for (uint32_t others = w.active; others != 0; others &= others - 1)
            if (value_of(w, op, first_lane(others)) == value_of(w, op, lane)) result[lane] |= others & (0U - others);
    }
    uint32_t* d = result_row<uint32_t>(w, op.d);
    each_lane(w.active, [&](uint32_t i) { d[i] = result[i]; });
}

void match_all(Warp& w, const Op& op) {
    const uint64_t first = value_of(w, op, first_lane(w.active));
    bool same = true;
    for (uint32_t left = w.active; left != 0; left &= left - 1)
        same = same && value_of(w, op, first_lane(left)) == first;
    const uint32_t result = same ? w.active : 0;
    uint32_t* d = result_row<uint32_t>(w, op.d);
    each_lane(w.active, [=](uint32_t i) { d[i] = result; });
    set_predicate(w, op.count, same ? kAllLanes : 0);
}

void redux(Warp& w, const Op& op) {
    const auto* a = row<uint32_t>(w, op.a);
    const auto kind = static_cast<Reduction>(op.value);
    uint32_t total = a[first_lane(w.active)];
    for (uint32_t left = w.active & (w.active - 1); left != 0; left &= left - 1) {
        const uint32_t x = a[first_lane(left)];
        const auto sx = static_cast<int32_t>(x), st = static_cast<int32_t>(total);
        switch (kind) {
            case Reduction::add:
                total += x;
                break;
            case Reduction::min_u:
                total = std::min(total, x);
                break;
            case Reduction::max_u:
                total = std::max(total, x);
                break;
            case Reduction::min_s:
                total = static_cast<uint32_t>(std::min(st, sx));
                break;
            case Reduction::max_s:
                total = static_cast<uint32_t>(std::max(st, sx));
                break;
            case Reduction::and_:
                total &= x;
                break;
            case Reduction::or_:
                total |= x;
                break;
            case Reduction::xor_:
                total ^= x;
                break;
        }
    }
    uint32_t* d = result_row<uint32_t>(w, op.d);
    each_lane(w.active, [=](uint32_t i) { d[i] = total; });
}

void redux_float(Warp& w, const Op& op) {
    const auto* a = row<float>(w, op.a);
    float total = std::numeric_limits<float>::quiet_NaN();
    bool nan = false;
    for (uint32_t left = w.active; left != 0; left &= left - 1) {
        float x = a[first_lane(left)];
        if ((op.flags & kAbsolute) != 0) x = std::fabs(x);
        nan = nan || std::isnan(x);
        total = op.value == 0 ? std::fmin(total, x) : std::fmax(total, x);
    }
    if (nan && (op.flags & kPropagateNan) != 0) total = std::numeric_limits<float>::quiet_NaN();
    float* d = result_row<float>(w, op.d);
    each_lane(w.active, [=](uint32_t i) { d[i] = total; });
}

void activemask(Warp& w, const Op& op) {
    uint32_t* d = result_row<uint32_t>(w, op.d);
    const uint32_t active = w.active;
    each_lane(active, [=](uint32_t i) { d[i] = active; });
}

void elect(Warp& w, const Op& op) {
    const uint32_t leader = first_lane(w.active);
    if (op.value != 0) {
        uint32_t* d = result_row<uint32_t>(w, op.d);
        each_lane(w.active, [=](uint32_t i) { d[i] = leader; });
    }
    set_predicate(w, op.count, 1U << leader);
}

void warp_barrier(Warp& w, const Op&) { synchronise_lanes(w); }

namespace {

// The row that a lane points to, or null. Rows have 16 bytes; the lanes 8 i to 8 i + 7 point to those of matrix i.
struct Rows {
    uint8_t* data[kLanes] = {};
    uint32_t offset[kLanes] = {};
    uint32_t valid = 0;
};
Rows matrix_rows(Warp& w, const Op& op) {
    Rows rows;
    for (uint32_t lane = 0; lane < 8 * op.count; ++lane) {
        if ((w.active >> lane & 1) == 0) continue;  // reported by the check of the mask
        uint64_t address = (op.flags & kAddress64) != 0
                               ? row<uint64_t>(w, op.a)[lane] + op.value
                               : uint64_t{static_cast<uint32_t>(row<uint32_t>(w, op.a)[lane] + op.value)};
        if (op.space == AddressSpace::generic) address -= kSharedWindow;
        if (!resolve_shared(w, op, lane, address, 16)) continue;
        rows.valid |= 1U << lane;
        rows.offset[lane] = static_cast<uint32_t>(address);
        rows.data[lane] = w.block->shared + address;
    }
    return rows;
}

}  // namespace

void ldmatrix(Warp& w, const Op& op) {
    const Rows rows = matrix_rows(w, op);
    if (w.block->checks)
        for (uint32_t lane = 0; lane < 8 * op.count; ++lane)
            if ((rows.valid >> lane & 1) != 0) shadow_read(w, op, kWholeWarp, rows.offset[lane], 16, false);
    if (w.block->counters && rows.valid != 0) count_shared(w.block->traffic.shared_load, rows.offset, rows.valid, 16);
    const bool transpose = (op.flags & kTranspose) != 0;
    for (uint32_t matrix = 0; matrix < op.count; ++matrix) {
        // Lane after lane, a register is the matrix itself: two columns each.
        auto* d = result_row<uint16_t>(w, list(w, op)[matrix]);
        for (uint32_t r = 0; r < 8; ++r) {
            uint16_t values[8] = {kPoison, kPoison, kPoison, kPoison, kPoison, kPoison, kPoison, kPoison};
            if (const uint8_t* data = rows.data[matrix * 8 + r]) std::memcpy(values, data, 16);
            if (transpose)
                for (uint32_t c = 0; c < 8; ++c) d[c * 8 + r] = values[c];
            else
                std::memcpy(d + r * 8, values, 16);
        }
    }
}

void stmatrix(Warp& w, const Op& op) {
    const Rows rows = matrix_rows(w, op);
    if (w.block->counters && rows.valid != 0) count_shared(w.block->traffic.shared_store, rows.offset, rows.valid, 16);
    for (uint32_t matrix = 0; matrix < op.count; ++matrix) {
        const auto* a = row<uint16_t>(w, list(w, op)[matrix]);
        const bool transpose = (op.flags & kTranspose) != 0;
        for (uint32_t r = 0; r < 8; ++r) {
            const uint32_t lane = matrix * 8 + r;
            if ((rows.valid >> lane & 1) == 0) continue;
            uint16_t values[8];
            for (uint32_t c = 0; c < 8; ++c) values[c] = transpose ? a[c * 8 + r] : a[r * 8 + c];
            if (w.block->checks)
                shadow_write(w, op, kWholeWarp, rows.offset[lane], 16, reinterpret_cast<const uint8_t*>(values), false);
            std::memcpy(rows.data[lane], values, 16);
        }
    }
}

void movmatrix(Warp& w, const Op& op) {
    uint16_t values[64];
    std::memcpy(values, row<uint16_t>(w, op.a), sizeof values);
    auto* d = result_row<uint16_t>(w, op.d);
    for (uint32_t r = 0; r < 8; ++r)
        for (uint32_t c = 0; c < 8; ++c) d[r * 8 + c] = values[c * 8 + r];
}

}  // namespace vlmk::emulator
