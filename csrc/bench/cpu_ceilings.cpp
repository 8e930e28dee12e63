// The work behind the ceilings, in the vocabulary of the kernels: the same instructions, and nothing else.
#include "bench/ceilings.h"
#include "simd/convert.h"
#include "simd/math.h"
#include "simd/product.h"

namespace vlmk::VLMK_ISA {
namespace {

// Enough chains to hide the latency of every port, few enough to stay in registers with the two operands. In rows,
// because compilers unroll two short loops where they keep one long loop, and its chains in memory.
#if defined(__AVX512F__)
constexpr int kRowsOfChains = 6;
#elif VLMK_LANES == 16
constexpr int kRowsOfChains = 2;  // emulated: a vector is two registers
#else
constexpr int kRowsOfChains = 3;
#endif
constexpr int kChainsInRow = 4, kChains = kRowsOfChains * kChainsInRow;

// Runs `step` on every chain, `rounds` times. Chains start apart, or the compiler would compute one for all.
template <class Step>
VLMK_INLINE float run_chains(int64_t rounds, const Step& step) {
    Vec chain[kRowsOfChains][kChainsInRow];
    for (int i = 0; i < kRowsOfChains; ++i)
        for (int j = 0; j < kChainsInRow; ++j)
            chain[i][j] = splat(static_cast<float>(i * kChainsInRow + j) + static_cast<float>(rounds & 1));
    for (int64_t round = 0; round < rounds; ++round)
        for (int i = 0; i < kRowsOfChains; ++i)
            for (int j = 0; j < kChainsInRow; ++j) chain[i][j] = step(chain[i][j]);
    Vec sum{};
    for (int i = 0; i < kRowsOfChains; ++i)
        for (int j = 0; j < kChainsInRow; ++j) sum = sum + chain[i][j];
    return reduce_add(sum);
}

}  // namespace

CeilingWork multiply_add_work(int64_t rounds) {
    // The chain is a factor, not the addend: a product of two constants would be taken out of the loop.
    const Vec half = splat(rounds > 0 ? 0.5f : 0.25f), addend = splat(0.75f);
    const float witness = run_chains(rounds, [&](Vec chain) { return F32Unit::multiply_add(addend, chain, half); });
    return {2.0 * kLanes * kChains * static_cast<double>(rounds), witness};
}

CeilingWork bf16_dot_work(int64_t rounds) {
#if VLMK_BF16_DOT && defined(__AVX512BF16__)
    const UintVec a = UintVec{} + (rounds > 0 ? 0x3c003c00u : 0u), b = UintVec{} + 0x3c803c80u;
    const float witness = run_chains(rounds, [&](Vec chain) { return Bf16Unit::multiply_add(chain, a, b); });
    return {4.0 * kLanes * kChains * static_cast<double>(rounds), witness};
#else
    return {0.0, static_cast<float>(rounds)};
#endif
}

CeilingWork bf16_tiles_work(int64_t rounds) {
#if VLMK_BF16_TILES && !defined(VLMK_EMULATE_AVX512)
    const ProductScope scope;
    uint32_t ones[kTileRows * kTileRows];
    for (uint32_t& pair : ones) pair = 0x3f803f80u;
    load_tile<4>(ones, kTileBytes);
    load_tile<5>(ones, kTileBytes);
    load_tile<6>(ones, kTileBytes);
    load_tile<7>(ones, kTileBytes);
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    for (int64_t round = 0; round < rounds; ++round) {
        multiply_tiles<0, 4, 6>();
        multiply_tiles<1, 4, 7>();
        multiply_tiles<2, 5, 6>();
        multiply_tiles<3, 5, 7>();
    }
    float sums[kTileRows * kTileRows];
    store_tile<3>(sums, kTileBytes);
    return {4.0 * 2.0 * kTileRows * kTileRows * 2 * kTileRows * static_cast<double>(rounds), sums[0]};
#else
    return {0.0, static_cast<float>(rounds)};
#endif
}

CeilingWork exp2_work(int64_t rounds) {
    constexpr int64_t kCount = 2048;  // 8 KiB in, 8 KiB out
    Buffer<float> from(kCount), to(kCount);
    for (int64_t i = 0; i < kCount; ++i) from[i] = -static_cast<float>(i) / 128.0f;
    for (int64_t round = 0; round < rounds; ++round) {
        // A result goes into the next round, which keeps it from being computed once for all.
        from[round % kCount] = -to[0] * 0.0f - 1.0f;
        for (int64_t i = 0; i < kCount; i += kLanes) store(to.get() + i, exp2_nonpositive(load(from.get() + i)));
    }
    return {static_cast<double>(kCount) * static_cast<double>(rounds), to[rounds % kCount]};
}

CeilingWork read_work(const float* from, int64_t count) {
    constexpr int kSums = 8;
    Vec sum[kSums] = {};
    int64_t i = 0;
    for (; i + kSums * kLanes <= count; i += kSums * kLanes)
        for (int s = 0; s < kSums; ++s) sum[s] = sum[s] + load(from + i + s * kLanes);
    Vec all{};
    for (int s = 0; s < kSums; ++s) all = all + sum[s];
    return {static_cast<double>(i) * sizeof(float), reduce_add(all)};
}

}  // namespace vlmk::VLMK_ISA
