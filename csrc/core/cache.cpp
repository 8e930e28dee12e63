#include "core/cache.h"

#include <unistd.h>

namespace vlmk {
namespace {

[[maybe_unused]] int64_t ask(int name, int64_t otherwise) {
    const long bytes = sysconf(name);
    return bytes > 0 ? bytes : otherwise;
}

}  // namespace

const CacheSizes& cache_sizes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    static const CacheSizes sizes{ask(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), ask(_SC_LEVEL2_CACHE_SIZE, 512 << 10)};
#else
    static const CacheSizes sizes{32 << 10, 512 << 10};
#endif
    return sizes;
}

}  // namespace vlmk
