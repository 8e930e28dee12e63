// Sizes of the caches of one core, read once. Block sizes follow them, never the number of threads: results are the
// same for any number, on machines with the same caches.
#pragma once
#include <cstdint>

namespace vlmk {

struct CacheSizes {
    int64_t first, second;  // bytes
};

// What the system says; 32 KiB and 512 KiB where it says nothing.
const CacheSizes& cache_sizes();

}  // namespace vlmk
