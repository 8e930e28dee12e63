// The state of the machine and its instructions in the form they run.
//
// A register of a warp is 32 lanes side by side, in 2, 4 or 8 bytes each; an operand is the byte offset of such a row
// in the warp's register file or, with the top bit set, in the kernel's constants. Predicates are bit masks of lanes.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/inline.h"
#include "emulator/emulator.h"
#include "emulator/flow.h"
#include "emulator/types.h"

// Lanes do not depend on one another, even where an operand and the result share a row.
#if defined(__clang__)
#define VLMK_INDEPENDENT_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define VLMK_INDEPENDENT_LANES _Pragma("GCC ivdep")
#endif

namespace vlmk::emulator {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kAllLanes = ~0U;
constexpr uint32_t kConstant = 1U << 31;  // operand bit: the row is a constant
constexpr uint32_t kMaxWarps = 32;
constexpr uint32_t kBarriers = 16;
constexpr uint16_t kNoPredicate = 0xffff;

// Uninitialised memory and registers: a NaN in every floating type.
constexpr uint16_t kPoison = 0xfff7;

// Generic addresses: the state spaces that are no host memory lie in windows that no host address reaches.
constexpr uint64_t kSharedWindow = uint64_t{1} << 56;
constexpr uint64_t kLocalWindow = uint64_t{2} << 56;
constexpr uint64_t kParameterWindow = uint64_t{3} << 56;
constexpr uint64_t kWindowMask = uint64_t{0xff} << 56;

struct Warp;
struct Block;
struct Op;
using Handler = void (*)(Warp&, const Op&);

enum class Control : uint8_t {
    none,
    branch,
    indexed_branch,
    exit,
    trap,
    warp_sync,     // runs when all lanes its mask names are here
    warp_barrier,  // bar.warp.sync: the same, but any of them will do
    barrier,       // bar.sync, bar.red, bar.arrive
};

// Where an address points, as far as the program says.
enum class AddressSpace : uint8_t { generic, global, shared, local, constant, parameter };

struct Op {
    Handler run = nullptr;
    uint32_t d = 0, a = 0, b = 0, c = 0;  // operands: rows, or predicates
    uint64_t value = 0;                   // address offset, immediate
    uint32_t list = 0, count = 0;         // further operands in Program::operands
    uint32_t target = 0;
    uint32_t flags = 0;  // of the handler
    uint16_t guard = kNoPredicate;
    bool guard_negated = false;
    Control control = Control::none;
    InstructionClass instruction_class = InstructionClass::other;
    bool added = false;  // a step of an instruction, or a jump, that is not counted by itself
    AddressSpace space = AddressSpace::generic;
    uint8_t bytes = 0;  // of one element of an access
};

// Flags that several families share.
enum OpFlag : uint32_t {
    kAddress64 = 1U << 0,  // the address register has 64 bits
    kFullMask = 1U << 1,   // the member mask is the constant -1
    kAligned = 1U << 2,    // all threads of the warp run this together
    kStrong = 1U << 3,     // volatile, relaxed, acquire, release: no data race among these
    kHasCount = 1U << 4,   // barrier with a thread count
    kArrive = 1U << 5,     // barrier that does not wait
    kFamily = 8,           // first bit that a family may use for itself
};

struct SourceLine {
    uint32_t ptx_line = 0, file = 0, line = 0;
    std::string text;
};

enum class Special : uint8_t {
    tid_x,
    tid_y,
    tid_z,
    ntid_x,
    ntid_y,
    ntid_z,
    ctaid_x,
    ctaid_y,
    ctaid_z,
    nctaid_x,
    nctaid_y,
    nctaid_z,
    laneid,
    warpid,
    nwarpid,
    smid,
    nsmid,
    gridid,
    lanemask_eq,
    lanemask_le,
    lanemask_lt,
    lanemask_ge,
    lanemask_gt,
    dynamic_smem_size,
    total_smem_size,
    count_
};

struct Program {
    KernelInfo info;
    std::vector<Op> ops;
    std::vector<uint32_t> operands;
    std::vector<SourceLine> sources;  // one for each op
    std::vector<uint8_t> constants;
    std::vector<std::pair<Special, uint32_t>> specials;  // rows that are filled before a warp starts
    uint32_t register_bytes = 0, predicates = 0;
    uint32_t local_bytes = 0, static_shared = 0, dynamic_shared_offset = 0;
    uint32_t granule_shift = 4;  // log2 of the bytes of a Cell
};

// Which accesses of other warps a warp knows to be over: the clocks of all warps it has synchronised with.
using Clocks = std::array<uint32_t, kMaxWarps>;

struct PendingCopy {
    const uint8_t* source;
    uint32_t destination;
    uint32_t group;  // of its thread
    uint32_t op;
    uint8_t bytes, source_bytes;
};

struct alignas(64) Warp {
    const uint8_t* base[2] = {};  // registers, constants
    uint32_t* predicates = nullptr;
    uint32_t active = 0;  // lanes the running op is for
    uint32_t index = 0;
    uint32_t live = 0;  // lanes that have not exited
    uint32_t started = 0;
    uint32_t waiting = 0;     // lanes at a warp_sync or warp_barrier op, for others
    uint32_t at_barrier = 0;  // lanes that have arrived at a barrier of the block
    uint32_t spins = 0;
    std::array<uint32_t, kLanes> pc{};
    std::array<uint32_t, kLanes> wanted{};  // member masks of waiting lanes
    Block* block = nullptr;
    uint8_t* local = nullptr;
    Clocks clocks{};
    uint32_t synchronised = 1;  // own clock when all lanes last met
    uint32_t clock() const { return clocks[index]; }
    std::array<std::vector<PendingCopy>, kLanes> copies;
    std::array<uint32_t, kLanes> copy_groups{};
};

struct Barrier {
    std::array<uint32_t, kMaxWarps> arrived{};  // lanes
    uint32_t threads = 0;                       // that have arrived, whole warps as 32
    uint32_t expected = 0;                      // 0: all of the block
    uint32_t op = 0;
    uint32_t votes = 0;  // lanes with a true predicate (bar.red)
    uint32_t voters = 0;
    bool in_use = false;
    Clocks clocks{};
};

// What is known of the last accesses to a granule of shared memory: as many bytes as the kernel's smallest store there,
// so that no store changes half of one. A stamp is warp, lane and clock of an access; 0 is none.
struct Cell {
    uint32_t writer = 0;
    uint32_t readers[2] = {0, 0};  // of different warps
    uint32_t writer_op = 0;
    uint32_t reader_op = 0;
    bool initialised = false;
    bool strong_writer = false, strong_reader = false;
    bool in_flight = false;  // a cp.async will write it
};

struct ModuleImpl;
struct Launch;
struct MBarrierState;

struct Block {
    const Launch* launch = nullptr;
    const Program* program = nullptr;
    Dim3 index{0, 0, 0};
    uint8_t* shared = nullptr;
    uint32_t shared_bytes = 0;
    bool checks = false, counters = false;
    std::vector<Warp> warps;
    std::array<Barrier, kBarriers> barriers;
    std::vector<Cell> cells;
    Clocks strong_clocks{};  // what strong accesses have published
    std::unordered_map<uint32_t, MBarrierState> mbarriers;
    std::unordered_map<uint64_t, Finding> findings;  // by kind and op
    std::vector<uint64_t> executed;                  // by op
    Counters traffic;
    uint64_t exited_threads = 0;
    uint64_t instructions = 0;
    uint64_t failed_waits = 0;  // mbarrier tests that failed since the block last got on
    bool stopped = false;
    bool exit_reported = false;
    uint64_t random = 0;

    uint32_t op_index(const Op& op) const { return static_cast<uint32_t>(&op - program->ops.data()); }
};

// Everything the blocks of one launch share.
struct Launch {
    const ModuleImpl* module = nullptr;
    const Program* program = nullptr;
    const LaunchOptions* options = nullptr;
    const uint8_t* parameters = nullptr;
    std::vector<Region> regions;  // sorted, those of the module's variables too
    uint32_t block_threads = 0, warps = 0, shared_bytes = 0;
};

template <class T>
VLMK_INLINE const T* row(const Warp& w, uint32_t operand) {
    return reinterpret_cast<const T*>(w.base[operand >> 31] + (operand & ~kConstant));
}
template <class T>
VLMK_INLINE T* result_row(const Warp& w, uint32_t operand) {
    return reinterpret_cast<T*>(const_cast<uint8_t*>(w.base[0]) + operand);
}
VLMK_INLINE const uint32_t* list(const Warp& w, const Op& op) { return w.block->program->operands.data() + op.list; }

template <class Body>
VLMK_INLINE void each_lane(uint32_t active, const Body& body) {
    if (active == kAllLanes) {
        VLMK_INDEPENDENT_LANES
        for (uint32_t lane = 0; lane < kLanes; ++lane) body(lane);
    } else {
        for (; active != 0; active &= active - 1) body(static_cast<uint32_t>(__builtin_ctz(active)));
    }
}
VLMK_INLINE void set_predicate(const Warp& w, uint32_t predicate, uint32_t lanes) {
    if (predicate == kNoPredicate) return;
    uint32_t& p = w.predicates[predicate];
    p = (p & ~w.active) | (lanes & w.active);
}

void report(Warp& w, const Op& op, FindingKind kind, uint32_t lane, const std::string& message);

}  // namespace vlmk::emulator
