// Addresses of a warp become pointers here: state spaces, bounds, alignment, traffic.
#pragma once
#include "emulator/machine.h"

namespace vlmk::emulator {

enum class AccessKind : uint8_t { load, store, atomic, async_read };

struct Access {
    uint64_t address[kLanes];  // as the program says, offset included
    uint8_t* pointer[kLanes];
    uint32_t shared[kLanes];  // offset in shared memory
    uint32_t lanes = 0;       // that may go ahead
    uint32_t in_shared = 0;   // those of them that are in shared memory
};

struct Address {
    AddressSpace space;
    uint32_t base;  // operand
    bool wide;      // of 64 bits
    uint64_t offset;
};

// Resolves `bytes` consecutive bytes for every active lane. What must not be touched is reported, counted and left out.
void resolve(Warp& w, const Op& op, AccessKind kind, uint32_t bytes, Access& access);
void resolve(Warp& w, const Op& op, const Address& from, AccessKind kind, uint32_t lanes, uint32_t bytes,
             uint32_t align, Access& access);
// The same for a shared address that an instruction computed by itself; false leaves it out.
bool resolve_shared(Warp& w, const Op& op, uint32_t lane, uint64_t offset, uint32_t bytes);
// Passes over the banks for accesses of `bytes` at offsets `shared` of the lanes.
void count_shared(SharedTraffic& traffic, const uint32_t* shared, uint32_t lanes, uint32_t bytes);

// Reads of cp.async, which a lane may make shorter than others, are one request: who resolves them counts them.
void count_async(Block& block, const Access& from, uint32_t lanes, const uint32_t* sizes);

// Strong accesses order: what a thread did before a strong write is seen by who reads strongly afterwards.
void order_strong(Warp& w, AccessKind kind);

Handler load_handler(Type type, Type register_type);
Handler store_handler(Type type, Type register_type);
Handler uniform_handler(Type type, Type register_type);  // a kernel parameter at op.value

}  // namespace vlmk::emulator
