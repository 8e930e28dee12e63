// A PTX machine on the CPU: runs the output of a CUDA compiler on host memory, adversarially, and reports what a GPU
// would have let pass. Plain C++: no Python, no torch, no instruction-set dependence.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace vlmk::emulator {

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
    uint64_t count() const { return uint64_t{x} * y * z; }
};

struct Parameter {
    std::string name;
    std::string type;  // as the PTX says: "u64", "f32", "b8" for structs
    uint32_t offset = 0, size = 0, align = 1;
};

struct KernelInfo {
    std::string name;
    std::vector<Parameter> parameters;
    uint32_t parameter_bytes = 0;
    uint32_t static_shared_bytes = 0;
    uint32_t max_threads = 1024;  // .maxntid or .reqntid of the kernel
    uint32_t registers = 0;       // 32-bit registers a thread holds at the most live point, in PTX
};

// A variable in the .global or .const space. Its memory belongs to the module.
struct GlobalVariable {
    std::string name;
    void* address = nullptr;
    size_t bytes = 0;
    bool writable = true;
};

struct ModuleImpl;

// A loaded module. Launches of one module may run at the same time.
class Module {
  public:
    explicit Module(std::unique_ptr<ModuleImpl> impl);
    ~Module();
    Module(const Module&) = delete;
    Module& operator=(const Module&) = delete;

    const std::string& name() const;
    const std::vector<KernelInfo>& kernels() const;
    const KernelInfo& kernel(const std::string& kernel_name) const;  // std::invalid_argument lists the known ones
    const std::vector<GlobalVariable>& globals() const;
    const GlobalVariable* global(const std::string& variable_name) const;  // null where there is none
    const ModuleImpl& impl() const { return *impl_; }

  private:
    std::unique_ptr<ModuleImpl> impl_;
};

// Parses and decodes PTX text. Throws std::invalid_argument for text that is not PTX and NotImplemented for an
// instruction the emulator does not know; both name the line and the instruction.
std::shared_ptr<Module> load_module(std::string ptx, std::string name);

// Memory a launch may touch: one bounded allocation. The module's own variables are regions by themselves.
struct Region {
    uintptr_t begin = 0;
    size_t bytes = 0;
    std::string name;
    bool writable = true;
};

enum class Schedule : uint8_t { round_robin, random };

struct LaunchOptions {
    Dim3 grid, block;
    uint32_t dynamic_shared_bytes = 0;
    Schedule schedule = Schedule::round_robin;
    uint64_t seed = 0;
    bool checks = true;    // without: global addresses are host pointers, used as they are
    bool counters = true;  // what instructions did, not only how many there were
    int threads = 0;       // host threads running blocks; 0: as many as the machine has
    std::vector<Region> regions;
    std::optional<std::vector<uint64_t>> blocks;     // run these alone, by linear index; the others are left out
    uint64_t instruction_limit = uint64_t{1} << 30;  // warp instructions of one block before it is called a livelock
};

enum class FindingKind : uint8_t {
    out_of_bounds_global,
    out_of_bounds_shared,
    out_of_bounds_local,
    misaligned,
    uninitialised_shared,
    shared_race,
    async_copy_in_flight,  // shared memory touched while a cp.async still has to write it
    barrier_divergence,
    deadlock,
    warp_mask,  // shfl, vote, mma, ... whose lanes are not the ones its mask names
    trap,       // trap, a failed assert
};
const char* name(FindingKind kind);

// One per kind and instruction: the first occurrence, and how many there were.
struct Finding {
    FindingKind kind{};
    std::string kernel;
    uint32_t ptx_line = 0;
    std::string instruction;  // the PTX text
    std::string source_file;  // from .loc (nvcc -lineinfo); empty without
    uint32_t source_line = 0;
    std::string message;
    Dim3 block{0, 0, 0}, thread{0, 0, 0};
    uint64_t occurrences = 0;
    std::string text() const;
};

enum class InstructionClass : uint8_t {
    integer,
    floating,
    half,
    special,  // ex2, rcp, sin, ...
    conversion,
    move,
    compare,
    global_load,
    global_store,
    shared_load,
    shared_store,
    local_memory,
    parameter,  // .param and .const
    generic,    // loads and stores by generic address
    atomic,
    matrix_load,  // ldmatrix, stmatrix
    tensor,       // mma
    async_copy,
    warp,  // shfl, vote, ...
    barrier,
    control,
    other,
    count_
};
constexpr size_t kInstructionClasses = static_cast<size_t>(InstructionClass::count_);
const char* name(InstructionClass instruction_class);

// Bytes the threads asked for, 32-byte sectors they touched, and the sectors those bytes would fill when packed.
struct GlobalTraffic {
    uint64_t bytes = 0, sectors = 0, ideal_sectors = 0;
};
// Passes over the 32 banks, and the passes the bytes need without conflicts.
struct SharedTraffic {
    uint64_t bytes = 0, wavefronts = 0, ideal_wavefronts = 0;
};

struct Counters {
    uint64_t warp_instructions = 0;
    uint64_t thread_instructions = 0;
    std::array<uint64_t, kInstructionClasses> by_class{};  // warp instructions
    uint64_t tensor_flops = 0;                             // 2 m n k of every mma
    GlobalTraffic global_load, global_store, global_async, global_atomic;
    SharedTraffic shared_load, shared_store;
    uint64_t branches = 0, divergent_branches = 0;
    uint64_t partial_instructions = 0;  // issued for fewer lanes than the warp has
    uint64_t barriers = 0;              // completed by a whole group of threads
    uint64_t blocks = 0, warps = 0;
    void add(const Counters& other);
};

struct Report {
    std::string kernel;
    std::vector<Finding> findings;
    Counters counters;
    double seconds = 0;
    bool completed = true;  // false when a block was stopped: trap, deadlock, livelock
    std::string summary() const;
};

// Runs a kernel. `params` is the kernel's parameter block, laid out as KernelInfo says. Throws std::invalid_argument
// for a launch that no GPU would accept; what the kernel does wrong is in the report.
Report launch(const Module& module, const std::string& kernel, const void* params, size_t param_bytes,
              const LaunchOptions& options);

}  // namespace vlmk::emulator
