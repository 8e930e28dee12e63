#include "core/buffer.h"

#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define VLMK_KEEP_SCRATCH 0
#else
#define VLMK_KEEP_SCRATCH 1
#endif

namespace vlmk {
namespace {

constexpr size_t kAlignment = 64;
constexpr int kSmallest = 10, kLargest = 23;  // powers of two: 1 KiB to 8 MiB
constexpr size_t kKeptPerThread = size_t{32} << 20;

int size_class(size_t bytes) {
    int power = kSmallest;
    while ((size_t{1} << power) < bytes) ++power;
    return power;
}

void* allocate(size_t bytes) {
    void* memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

// Free blocks of one thread by size; a free block holds the address of the next.
struct Kept {
    struct Block {
        Block* next;
    };
    Block* blocks[kLargest - kSmallest + 1] = {};
    size_t bytes = 0;

    ~Kept() {
        for (Block* block : blocks)
            while (block != nullptr) {
                Block* next = block->next;
                std::free(block);
                block = next;
            }
    }
};
thread_local Kept kept;

}  // namespace

void* take_scratch(size_t bytes) {
    const int power = size_class(bytes);
    if (!VLMK_KEEP_SCRATCH || power > kLargest) return allocate(bytes);
    Kept::Block*& first = kept.blocks[power - kSmallest];
    if (first == nullptr) return allocate(size_t{1} << power);
    Kept::Block* block = first;
    first = block->next;
    kept.bytes -= size_t{1} << power;
    return block;
}

void give_scratch(void* memory, size_t bytes) noexcept {
    if (memory == nullptr) return;
    const int power = size_class(bytes);
    const size_t size = size_t{1} << power;
    if (!VLMK_KEEP_SCRATCH || power > kLargest || kept.bytes + size > kKeptPerThread) return std::free(memory);
    kept.blocks[power - kSmallest] = new (memory) Kept::Block{kept.blocks[power - kSmallest]};
    kept.bytes += size;
}

}  // namespace vlmk
