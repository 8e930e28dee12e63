#pragma once

// For functions in headers that kernel sources of several instruction sets include: without inlining, the linker would
// keep one copy, compiled for one of the sets, for all.
#define VLMK_INLINE inline __attribute__((always_inline))

// For what device code shares with the CPU.
#if defined(__CUDACC__)
#define VLMK_HOST_DEVICE __host__ __device__
#else
#define VLMK_HOST_DEVICE
#endif
