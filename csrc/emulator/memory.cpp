#include "emulator/memory.h"

#include <algorithm>
#include <cstdio>

#include "emulator/shadow.h"

namespace vlmk::emulator {
namespace {

struct Span {
    uint32_t bytes, align;
};

std::string hexadecimal(uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

const char* verb(AccessKind kind) {
    return kind == AccessKind::store ? "writes " : kind == AccessKind::atomic ? "updates " : "reads ";
}

// The region that holds an address, or the nearest one before it.
const Region* region_before(const std::vector<Region>& regions, uint64_t address) {
    auto after = std::upper_bound(regions.begin(), regions.end(), address,
                                  [](uint64_t value, const Region& region) { return value < region.begin; });
    return after == regions.begin() ? nullptr : &*(after - 1);
}

bool inside(const Region& region, uint64_t address, uint32_t bytes) {
    return address >= region.begin && address + bytes <= region.begin + region.bytes && address + bytes >= address;
}

void report_global(Warp& w, const Op& op, AccessKind kind, uint32_t lane, uint64_t address, uint32_t bytes) {
    const std::vector<Region>& regions = w.block->launch->regions;
    std::string message = verb(kind) + std::to_string(bytes) + " bytes at " + hexadecimal(address);
    const Region* before = region_before(regions, address);
    const Region* after = nullptr;
    for (const Region& region : regions)
        if (region.begin > address) {
            after = &region;
            break;
        }
    const uint64_t past = before != nullptr ? address - before->begin : ~uint64_t{0};
    const uint64_t ahead = after != nullptr ? after->begin - address : ~uint64_t{0};
    constexpr uint64_t kNear = 1u << 20;
    if (before != nullptr && inside(*before, address, bytes))
        message += ", inside '" + before->name + "', which may only be read";
    else if (before != nullptr && past < before->bytes + kNear && past - before->bytes <= ahead)
        message +=
            ", byte " + std::to_string(past) + " of '" + before->name + "', which has " + std::to_string(before->bytes);
    else if (after != nullptr && ahead < kNear)
        message += ", " + std::to_string(ahead) + " bytes before '" + after->name + "'";
    else
        message += ", far from every argument of the launch";
    report(w, op, FindingKind::out_of_bounds_global, lane, message);
}

void misaligned(Warp& w, const Op& op, AccessKind kind, uint32_t lane, uint64_t address, uint32_t bytes) {
    report(
        w, op, FindingKind::misaligned, lane,
        verb(kind) + std::string("at ") + hexadecimal(address) + ", which is no multiple of " + std::to_string(bytes));
}

// bytes_of(lane) is what a lane asks for.
template <class Bytes>
void count_global(GlobalTraffic& traffic, const Access& access, uint32_t lanes, const Bytes& bytes_of) {
    uint64_t sectors[4 * kLanes], asked = 0;
    uint32_t count = 0;
    bool sorted = true;
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const uint64_t address = access.address[lane], bytes = bytes_of(lane);
        asked += bytes;
        for (uint64_t s = address >> 5; s <= (address + bytes - 1) >> 5; ++s) {
            if (count > 0 && sectors[count - 1] == s) continue;
            sorted = sorted && (count == 0 || sectors[count - 1] < s);
            sectors[count++] = s;
        }
    }
    if (!sorted) {
        std::sort(sectors, sectors + count);
        count = static_cast<uint32_t>(std::unique(sectors, sectors + count) - sectors);
    }
    traffic.bytes += asked;
    traffic.sectors += count;
    traffic.ideal_sectors += (asked + 31) / 32;
}

GlobalTraffic& traffic_of(Counters& counters, AccessKind kind) {
    switch (kind) {
        case AccessKind::load:
            return counters.global_load;
        case AccessKind::store:
            return counters.global_store;
        case AccessKind::atomic:
            return counters.global_atomic;
        case AccessKind::async_read:
            break;
    }
    return counters.global_async;
}

void resolve_global(Warp& w, const Op& op, AccessKind kind, Span span, uint32_t lanes, Access& access) {
    const uint32_t bytes = span.bytes;
    Block& block = *w.block;
    if (block.checks) {
        const Region* last = nullptr;
        const bool writes = kind == AccessKind::store || kind == AccessKind::atomic;
        for (uint32_t left = lanes; left != 0; left &= left - 1) {
            const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
            const uint64_t address = access.address[lane];
            if (last == nullptr || !inside(*last, address, bytes)) last = region_before(block.launch->regions, address);
            if (last == nullptr || !inside(*last, address, bytes) || (writes && !last->writable)) {
                report_global(w, op, kind, lane, address, bytes);
                lanes &= ~(1U << lane);
                last = nullptr;
            } else if ((address & (span.align - 1)) != 0) {
                misaligned(w, op, kind, lane, address, span.align);
                lanes &= ~(1U << lane);
            }
        }
    }
    if (block.counters && lanes != 0 && kind != AccessKind::async_read)
        count_global(traffic_of(block.traffic, kind), access, lanes, [&](uint32_t) { return bytes; });
    for (uint32_t i = 0; i < kLanes; ++i) access.pointer[i] = reinterpret_cast<uint8_t*>(access.address[i]);
    access.lanes |= lanes;
}

void resolve_shared_lanes(Warp& w, const Op& op, AccessKind kind, Span span, uint32_t lanes, Access& access) {
    const uint32_t bytes = span.bytes;
    Block& block = *w.block;
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const uint64_t offset = access.address[lane];
        if (offset + bytes > block.shared_bytes || offset > block.shared_bytes) {
            report(w, op, FindingKind::out_of_bounds_shared, lane,
                   verb(kind) + std::to_string(bytes) + " bytes at shared address " + std::to_string(offset) +
                       "; the block has " + std::to_string(block.shared_bytes));
            lanes &= ~(1U << lane);
        } else if (block.checks && (offset & (span.align - 1)) != 0) {
            misaligned(w, op, kind, lane, offset, span.align);
            lanes &= ~(1U << lane);
        } else {
            access.shared[lane] = static_cast<uint32_t>(offset);
            access.pointer[lane] = block.shared + offset;
        }
    }
    if (block.counters && lanes != 0)
        count_shared(kind == AccessKind::load ? block.traffic.shared_load : block.traffic.shared_store, access.shared,
                     lanes, bytes);
    access.lanes |= lanes;
    access.in_shared |= lanes;
}

void resolve_local(Warp& w, const Op& op, AccessKind kind, Span span, uint32_t lanes, Access& access) {
    const uint32_t bytes = span.bytes;
    const uint32_t size = w.block->program->local_bytes;
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const uint64_t offset = access.address[lane];
        if (offset > size || offset + bytes > size) {
            report(w, op, FindingKind::out_of_bounds_local, lane,
                   verb(kind) + std::to_string(bytes) + " bytes at local address " +
                       std::to_string(static_cast<int64_t>(offset)) + "; the thread has " + std::to_string(size));
            lanes &= ~(1U << lane);
        } else if (w.block->checks && (offset & (span.align - 1)) != 0) {
            misaligned(w, op, kind, lane, offset, span.align);
            lanes &= ~(1U << lane);
        } else {
            access.pointer[lane] = w.local + uint64_t{lane} * size + offset;
        }
    }
    access.lanes |= lanes;
}

void resolve_parameter(Warp& w, const Op& op, AccessKind kind, Span span, uint32_t lanes, Access& access) {
    const uint32_t bytes = span.bytes;
    const uint32_t size = w.block->program->info.parameter_bytes;
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const uint64_t offset = access.address[lane];
        if (kind != AccessKind::load || offset > size || offset + bytes > size) {
            report(w, op, FindingKind::out_of_bounds_global, lane,
                   verb(kind) + std::to_string(bytes) + " bytes at parameter offset " + std::to_string(offset) +
                       "; the parameters have " + std::to_string(size) + " and may only be read");
            lanes &= ~(1U << lane);
        } else {
            access.pointer[lane] = const_cast<uint8_t*>(w.block->launch->parameters) + offset;
        }
    }
    access.lanes |= lanes;
}

void compute_addresses(const Warp& w, const Address& from, Access& access) {
    if (from.wide) {
        const auto* base = row<uint64_t>(w, from.base);
        for (uint32_t i = 0; i < kLanes; ++i) access.address[i] = base[i] + from.offset;
    } else {
        const auto* base = row<uint32_t>(w, from.base);
        const auto offset = static_cast<uint32_t>(from.offset);
        for (uint32_t i = 0; i < kLanes; ++i) access.address[i] = base[i] + offset;
    }
}

}  // namespace

void resolve(Warp& w, const Op& op, AccessKind kind, uint32_t bytes, Access& access) {
    resolve(w, op, {op.space, op.a, (op.flags & kAddress64) != 0, op.value}, kind, w.active, bytes, bytes, access);
}

void resolve(Warp& w, const Op& op, const Address& from, AccessKind kind, uint32_t lanes, uint32_t bytes,
             uint32_t align, Access& access) {
    compute_addresses(w, from, access);
    access.lanes = access.in_shared = 0;
    const Span span{bytes, align};
    switch (from.space) {
        case AddressSpace::global:
        case AddressSpace::constant:
            return resolve_global(w, op, kind, span, lanes, access);
        case AddressSpace::shared:
            return resolve_shared_lanes(w, op, kind, span, lanes, access);
        case AddressSpace::local:
            return resolve_local(w, op, kind, span, lanes, access);
        case AddressSpace::parameter:
            return resolve_parameter(w, op, kind, span, lanes, access);
        case AddressSpace::generic:
            break;
    }
    uint32_t global = 0, shared = 0, local = 0, parameter = 0;
    for (uint32_t left = lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        const uint32_t bit = 1U << lane;
        switch (access.address[lane] & kWindowMask) {
            case kSharedWindow:
                shared |= bit;
                break;
            case kLocalWindow:
                local |= bit;
                break;
            case kParameterWindow:
                parameter |= bit;
                break;
            default:
                global |= bit;
                continue;
        }
        access.address[lane] &= ~kWindowMask;
    }
    if (global != 0) resolve_global(w, op, kind, span, global, access);
    if (shared != 0) resolve_shared_lanes(w, op, kind, span, shared, access);
    if (local != 0) resolve_local(w, op, kind, span, local, access);
    if (parameter != 0) resolve_parameter(w, op, kind, span, parameter, access);
}

bool resolve_shared(Warp& w, const Op& op, uint32_t lane, uint64_t offset, uint32_t bytes) {
    if (offset > w.block->shared_bytes || offset + bytes > w.block->shared_bytes) {
        report(w, op, FindingKind::out_of_bounds_shared, lane,
               "touches " + std::to_string(bytes) + " bytes at shared address " + std::to_string(offset) +
                   "; the block has " + std::to_string(w.block->shared_bytes));
        return false;
    }
    if (w.block->checks && (offset & (bytes - 1)) != 0) {
        report(w, op, FindingKind::misaligned, lane,
               "touches " + std::to_string(bytes) + " bytes at shared address " + std::to_string(offset) +
                   ", which is no multiple of " + std::to_string(bytes));
        return false;
    }
    return true;
}

void count_shared(SharedTraffic& traffic, const uint32_t* shared, uint32_t lanes, uint32_t bytes) {
    // 8-byte accesses go in two passes of half the lanes, 16-byte ones in four.
    const uint32_t lanes_per_pass = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    for (uint32_t first = 0; first < kLanes; first += lanes_per_pass) {
        const uint32_t group = lanes & (lanes_per_pass == 32 ? kAllLanes : ((1U << lanes_per_pass) - 1) << first);
        if (group == 0) continue;
        if (bytes == 16) {  // rows of four banks; the same row goes to all who ask
            uint32_t rows[8], load[8] = {}, count = 0, worst = 1;
            for (uint32_t left = group; left != 0; left &= left - 1) {
                const uint32_t row = shared[__builtin_ctz(left)] >> 4;
                bool known = false;
                if (load[row & 7] != 0)
                    for (uint32_t i = 0; i < count && !known; ++i) known = rows[i] == row;
                if (known) continue;
                rows[count++] = row;
                worst = std::max(worst, ++load[row & 7]);
            }
            traffic.wavefronts += worst;
            traffic.ideal_wavefronts += 1;
            continue;
        }
        uint32_t words[kLanes * 4], load[32] = {}, count = 0, worst = 1;
        for (uint32_t left = group; left != 0; left &= left - 1) {
            const uint32_t offset = shared[__builtin_ctz(left)];
            for (uint32_t word = offset >> 2; word <= (offset + bytes - 1) >> 2; ++word) {
                bool known = false;  // the same word goes to all who ask
                if (load[word & 31] != 0)
                    for (uint32_t i = 0; i < count && !known; ++i) known = words[i] == word;
                if (known) continue;
                words[count++] = word;
                worst = std::max(worst, ++load[word & 31]);
            }
        }
        traffic.wavefronts += worst;
        traffic.ideal_wavefronts += 1;
    }
    traffic.bytes += uint64_t{bytes} * static_cast<uint32_t>(__builtin_popcount(lanes));
}

void count_async(Block& block, const Access& from, uint32_t lanes, const uint32_t* sizes) {
    if (block.counters && lanes != 0)
        count_global(block.traffic.global_async, from, lanes, [&](uint32_t lane) { return sizes[lane]; });
}

void order_strong(Warp& w, AccessKind kind) {
    if (kind != AccessKind::store) join(w, w.block->strong_clocks);
    if (kind != AccessKind::load) publish(w, w.block->strong_clocks);
}

namespace {

template <class Memory, class Register>
void load_elements(Warp& w, const Op& op) {
    const uint32_t count = op.count, bytes = count * sizeof(Memory);
    const uint32_t* to = list(w, op);
    Access access;
    resolve(w, op, AccessKind::load, bytes, access);
    if (w.block->checks) {
        const bool strong = (op.flags & kStrong) != 0;
        if (strong) order_strong(w, AccessKind::load);
        for (uint32_t left = access.in_shared; left != 0; left &= left - 1) {
            const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
            shadow_read(w, op, lane, access.shared[lane], bytes, strong);
        }
        for (uint32_t left = w.active & ~access.lanes; left != 0; left &= left - 1)
            for (uint32_t i = 0; i < count; ++i) {
                Register& d = result_row<Register>(w, to[i])[__builtin_ctz(left)];
                uint16_t poison[4] = {kPoison, kPoison, kPoison, kPoison};
                std::memcpy(&d, poison, sizeof d);
            }
    }
    for (uint32_t i = 0; i < count; ++i) {
        auto* d = result_row<Register>(w, to[i]);
        each_lane(access.lanes, [&](uint32_t lane) {
            Memory value;
            std::memcpy(&value, access.pointer[lane] + i * sizeof(Memory), sizeof value);
            d[lane] = static_cast<Register>(value);
        });
    }
}

template <class Memory, class Register>
void store_elements(Warp& w, const Op& op) {
    const uint32_t count = op.count, bytes = count * sizeof(Memory);
    const uint32_t* from = list(w, op);
    Access access;
    resolve(w, op, AccessKind::store, bytes, access);
    const bool strong = (op.flags & kStrong) != 0;
    for (uint32_t left = access.lanes; left != 0; left &= left - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
        uint8_t values[kLanes];
        for (uint32_t i = 0; i < count; ++i) {
            const auto value = static_cast<Memory>(row<Register>(w, from[i])[lane]);
            std::memcpy(values + i * sizeof(Memory), &value, sizeof value);
        }
        if ((access.in_shared >> lane & 1) != 0 && w.block->checks)
            shadow_write(w, op, lane, access.shared[lane], bytes, values, strong);
        std::memcpy(access.pointer[lane], values, bytes);
    }
    if (strong && w.block->checks) order_strong(w, AccessKind::store);
}

// A parameter that all lanes read at a place known beforehand.
template <class Memory, class Register>
void load_uniform(Warp& w, const Op& op) {
    const uint32_t* to = list(w, op);
    for (uint32_t k = 0; k < op.count; ++k) {
        Memory value;
        std::memcpy(&value, w.block->launch->parameters + op.value + k * sizeof(Memory), sizeof value);
        auto* d = result_row<Register>(w, to[k]);
        each_lane(w.active, [&](uint32_t i) { d[i] = static_cast<Register>(value); });
    }
}

template <template <class, class> class Pick, class Register>
Handler pick_memory(Type type) {
    switch (type) {
        case Type::b8:
        case Type::u8:
            return Pick<uint8_t, Register>::handler;
        case Type::s8:
            return Pick<int8_t, Register>::handler;
        default:
            break;
    }
    if constexpr (sizeof(Register) >= 2) {
        if (type == Type::s16) return Pick<int16_t, Register>::handler;
        if (size_of(type) == 2) return Pick<uint16_t, Register>::handler;
    }
    if constexpr (sizeof(Register) >= 4) {
        if (type == Type::s32) return Pick<int32_t, Register>::handler;
        if (size_of(type) == 4) return Pick<uint32_t, Register>::handler;
    }
    if constexpr (sizeof(Register) >= 8)
        if (size_of(type) == 8) return Pick<uint64_t, Register>::handler;
    return nullptr;
}
template <template <class, class> class Pick>
Handler pick(Type type, Type register_type) {
    switch (size_of(register_type)) {
        case 1:
        case 2:
            return pick_memory<Pick, uint16_t>(type);
        case 4:
            return pick_memory<Pick, uint32_t>(type);
        case 8:
            return pick_memory<Pick, uint64_t>(type);
        default:
            return nullptr;
    }
}
template <class M, class R>
struct PickLoad {
    static constexpr Handler handler = load_elements<M, R>;
};
template <class M, class R>
struct PickStore {
    static constexpr Handler handler = store_elements<M, R>;
};
template <class M, class R>
struct PickUniform {
    static constexpr Handler handler = load_uniform<M, R>;
};

}  // namespace

Handler load_handler(Type type, Type register_type) { return pick<PickLoad>(type, register_type); }
Handler store_handler(Type type, Type register_type) { return pick<PickStore>(type, register_type); }
Handler uniform_handler(Type type, Type register_type) { return pick<PickUniform>(type, register_type); }

}  // namespace vlmk::emulator
