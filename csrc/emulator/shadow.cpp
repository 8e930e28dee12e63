#include "emulator/shadow.h"

#include <algorithm>

namespace vlmk::emulator {
namespace {

constexpr uint32_t kClockBits = 21;
constexpr uint32_t kLastClock = (1U << kClockBits) - 1;

uint32_t make_stamp(const Warp& w, uint32_t lane) {
    return w.index << 27 | lane << kClockBits | std::min(w.clock(), kLastClock);
}
uint32_t warp_of(uint32_t stamp) { return stamp >> 27; }
uint32_t lane_of(uint32_t stamp) { return stamp >> kClockBits & 63; }
uint32_t clock_of(uint32_t stamp) { return stamp & kLastClock; }

// Has the access happened before what this lane does now?
bool ordered(const Warp& w, uint32_t lane, uint32_t stamp) {
    if (stamp == 0 || w.clock() >= kLastClock) return true;
    if (warp_of(stamp) == w.index) return lane_of(stamp) == lane || clock_of(stamp) < w.synchronised;
    return w.clocks[warp_of(stamp)] >= clock_of(stamp);
}
// An access of the whole warp was its threads' own: they went on together.
bool ordered_read(const Warp& w, uint32_t lane, uint32_t stamp) {
    return ordered(w, lane, stamp) || (warp_of(stamp) == w.index && lane_of(stamp) == kWholeWarp);
}

std::string who(const Warp& w, uint32_t stamp) {
    const uint32_t lane = lane_of(stamp);
    const std::string warp = "warp " + std::to_string(warp_of(stamp));
    if (lane == kWholeWarp) return warp;
    return "thread " + std::to_string(warp_of(stamp) * kLanes + lane) +
           (warp_of(stamp) == w.index ? " of the same warp" : " of " + warp);
}
std::string at_line(const Warp& w, uint32_t op) {
    return " at PTX line " + std::to_string(w.block->program->sources[op].ptx_line);
}
uint32_t some_lane(uint32_t lane) { return lane == kWholeWarp ? 0 : lane; }

void race(Warp& w, const Op& op, uint32_t lane, uint32_t offset, const char* what, uint32_t stamp, uint32_t other_op) {
    report(w, op, FindingKind::shared_race, some_lane(lane),
           std::string(what) + " shared byte " + std::to_string(offset) + " without a barrier after " + who(w, stamp) +
               at_line(w, other_op));
}

void read_cell(Warp& w, const Op& op, uint32_t lane, uint32_t offset, bool strong, Cell& cell) {
    if (cell.in_flight)
        report(w, op, FindingKind::async_copy_in_flight, some_lane(lane),
               "reads shared byte " + std::to_string(offset) + " that the cp.async" + at_line(w, cell.writer_op) +
                   " still has to write: a cp.async.wait_group is missing");
    else if (!cell.initialised)
        report(w, op, FindingKind::uninitialised_shared, some_lane(lane),
               "reads shared byte " + std::to_string(offset) + " that nothing has written");
    else if (!(strong && cell.strong_writer) && !ordered(w, lane, cell.writer))
        race(w, op, lane, offset, "reads", cell.writer, cell.writer_op);
    const uint32_t stamp = make_stamp(w, lane);
    if (cell.readers[0] == stamp) return;
    if (cell.readers[0] != 0 && warp_of(cell.readers[0]) != w.index) cell.readers[1] = cell.readers[0];
    cell.readers[0] = stamp;
    cell.reader_op = w.block->op_index(op);
    cell.strong_reader = strong;
}

// `changes` tells whether the bytes will differ from what is there; it is asked only where that matters.
template <class Changes>
void write_cell(Warp& w, const Op& op, uint32_t lane, uint32_t offset, bool strong, const Changes& changes,
                Cell& cell) {
    if (cell.in_flight) {
        report(w, op, FindingKind::async_copy_in_flight, some_lane(lane),
               "writes shared byte " + std::to_string(offset) + " that the cp.async" + at_line(w, cell.writer_op) +
                   " still has to write");
    } else if (!(strong && cell.strong_writer) && !ordered(w, lane, cell.writer)) {
        if (changes()) race(w, op, lane, offset, "writes", cell.writer, cell.writer_op);
    } else if (!(strong && cell.strong_reader)) {
        for (uint32_t reader : cell.readers)
            if (!ordered_read(w, lane, reader)) {
                if (changes()) race(w, op, lane, offset, "overwrites", reader, cell.reader_op);
                break;
            }
    }
    cell.writer = make_stamp(w, lane);
    cell.writer_op = w.block->op_index(op);
    cell.strong_writer = strong;
    cell.initialised = true;
}

// Calls body(cell, offset) for the cells of a range.
template <class Body>
void each_cell(Block& block, uint32_t offset, uint32_t bytes, const Body& body) {
    const uint32_t shift = block.program->granule_shift;
    const uint32_t last = (offset + bytes - 1) >> shift;
    for (uint32_t i = offset >> shift; i <= last; ++i) body(block.cells[i], i << shift);
}

}  // namespace

void shadow_read(Warp& w, const Op& op, uint32_t lane, uint32_t offset, uint32_t bytes, bool strong) {
    each_cell(*w.block, offset, bytes, [&](Cell& cell, uint32_t at) { read_cell(w, op, lane, at, strong, cell); });
}
void shadow_write(Warp& w, const Op& op, uint32_t lane, uint32_t offset, uint32_t bytes, const uint8_t* values,
                  bool strong) {
    const uint8_t* shared = w.block->shared;
    const uint32_t granule = 1U << w.block->program->granule_shift;
    each_cell(*w.block, offset, bytes, [&](Cell& cell, uint32_t at) {
        const auto changes = [&] {
            return values == nullptr || std::memcmp(shared + at, values + (at - offset), granule) != 0;
        };
        write_cell(w, op, lane, at, strong, changes, cell);
    });
}
void shadow_async_begin(Warp& w, const Op& op, uint32_t lane, uint32_t offset, uint32_t bytes) {
    each_cell(*w.block, offset, bytes, [&](Cell& cell, uint32_t at) {
        write_cell(w, op, lane, at, false, [] { return true; }, cell);
        cell.in_flight = true;
    });
}
void shadow_async_end(Warp& w, uint32_t lane, uint32_t offset, uint32_t bytes) {
    each_cell(*w.block, offset, bytes, [&](Cell& cell, uint32_t) {
        cell.in_flight = false;
        cell.writer = make_stamp(w, lane);
    });
}

void publish(Warp& w, Clocks& clocks) {
    for (uint32_t i = 0; i < kMaxWarps; ++i) clocks[i] = std::max(clocks[i], w.clocks[i]);
    ++w.clocks[w.index];
}
void join(Warp& w, const Clocks& clocks) {
    for (uint32_t i = 0; i < kMaxWarps; ++i) w.clocks[i] = std::max(w.clocks[i], clocks[i]);
}
void synchronise_lanes(Warp& w) { w.synchronised = ++w.clocks[w.index]; }

}  // namespace vlmk::emulator
