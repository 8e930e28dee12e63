// One block of threads from its first instruction to its last.
#pragma once
#include <memory>

#include "emulator/machine.h"

namespace vlmk::emulator {

// The memory of a block; used again for the next one.
class BlockRunner {
  public:
    explicit BlockRunner(const Launch& launch);
    ~BlockRunner();
    void run(Dim3 index, uint64_t linear_index);
    Block& block() { return block_; }

  private:
    void start(Dim3 index);
    void start_warp(Warp& w);
    void schedule();
    void report_deadlock();

    const Launch& launch_;
    Block block_;
    size_t register_stride_ = 0, local_stride_ = 0;
    std::unique_ptr<uint8_t[]> memory_;
    uint8_t *registers_ = nullptr, *locals_ = nullptr;
    std::vector<uint32_t> predicates_;
};

}  // namespace vlmk::emulator
