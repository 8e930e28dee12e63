// mma.sync. Every fragment register holds, lane after lane, a block of 8 rows (of A) or columns (of B) by 16 bytes of k;
// blocks follow one another first along m, then along k. So one routine unpacks all types and shapes.
//
// D = A B + C: products are exact, the sum starts at C and takes the products in the order of k, rounded to fp32 each
// time. Hardware adds several products at once with fewer bits; no program may rely on its order.
#include "emulator/lanes/apply.h"
#include "emulator/narrow.h"

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

constexpr uint32_t kMaxK = 32;

struct Half {
    using Storage = uint16_t;
    using Value = float;
    static float value(uint16_t bits) { return to_float(f16{bits}); }
};
struct Brain {
    using Storage = uint16_t;
    using Value = float;
    static float value(uint16_t bits) { return to_float(bf16{bits}); }
};
struct Tensor32 {  // the low 13 bits are not looked at
    using Storage = uint32_t;
    using Value = float;
    static float value(uint32_t bits) { return bits_to_float(bits & ~0x1fffU); }
};
template <class I>
struct Integer8 {
    using Storage = uint8_t;
    using Value = int32_t;
    static int32_t value(uint8_t bits) { return static_cast<I>(bits); }
};
template <Type T>
struct Float8 {
    using Storage = uint8_t;
    using Value = float;
    struct Table {
        float values[256];
        Table() {
            for (uint32_t i = 0; i < 256; ++i) values[i] = static_cast<float>(from_float_bits(i, T));
        }
    };
    static float value(uint8_t bits) {
        static const Table table;
        return table.values[bits];
    }
};
struct Double {
    using Storage = double;
    using Value = double;
    static double value(double x) { return x; }
};

// One register into 8 lines of `kWidth` values at `to`, `stride` apart.
template <class E>
void unpack(const Warp& w, uint32_t operand, typename E::Value* to, uint32_t stride) {
    constexpr uint32_t kWidth = sizeof(typename E::Storage) == 8 ? 4 : 16 / sizeof(typename E::Storage);
    const auto* from = row<typename E::Storage>(w, operand);
    for (uint32_t line = 0; line < 8; ++line)
        for (uint32_t i = 0; i < kWidth; ++i) to[line * stride + i] = E::value(from[line * kWidth + i]);
}
#if defined(__F16C__) && defined(__AVX2__)
}  // namespace
}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
#include <immintrin.h>
namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {
template <>
void unpack<Half>(const Warp& w, uint32_t operand, float* to, uint32_t stride) {
    const auto* from = row<__m128i>(w, operand);
    for (uint32_t line = 0; line < 8; ++line)
        _mm256_storeu_ps(to + static_cast<size_t>(line) * stride, _mm256_cvtph_ps(_mm_load_si128(from + line)));
}
#endif

inline float multiply_add(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;  // the product is exact anyway
#endif
}
inline double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline int32_t multiply_add(int32_t a, int32_t b, int32_t c) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b) + static_cast<uint32_t>(c));
}

// d (rows x 8) += a (rows x k) b (k x 8)
template <class T, uint32_t K>
void multiply(uint32_t rows, const T* a, const T* b, T* d) {
    for (uint32_t i = 0; i < rows; i += 8) {
        T sum[8][8];
        for (uint32_t r = 0; r < 8; ++r)
            for (uint32_t n = 0; n < 8; ++n) sum[r][n] = d[(i + r) * 8 + n];
        for (uint32_t k = 0; k < K; ++k)
            for (uint32_t r = 0; r < 8; ++r)
                for (uint32_t n = 0; n < 8; ++n) sum[r][n] = multiply_add(a[(i + r) * K + k], b[k * 8 + n], sum[r][n]);
        for (uint32_t r = 0; r < 8; ++r)
            for (uint32_t n = 0; n < 8; ++n) d[(i + r) * 8 + n] = sum[r][n];
    }
}
// Sums of 64-bit products, saturated once at the end.
template <uint32_t K>
void multiply_saturated(uint32_t rows, const int32_t* a, const int32_t* b, int32_t* d) {
    for (uint32_t i = 0; i < rows; ++i)
        for (uint32_t n = 0; n < 8; ++n) {
            int64_t sum = d[i * 8 + n];
            for (uint32_t k = 0; k < K; ++k) sum += int64_t{a[i * K + k]} * b[k * 8 + n];
            d[i * 8 + n] = static_cast<int32_t>(sum < INT32_MIN ? INT32_MIN : sum > INT32_MAX ? INT32_MAX : sum);
        }
}

// Operands in the op's list: D registers, A registers, B registers, C registers. op.count is m, op.value is k.
template <class A, class B, class Accumulator, uint32_t K, bool Saturate>
void mma_k(Warp& w, const Op& op) {
    using T = typename A::Value;
    constexpr uint32_t kWidth = sizeof(typename A::Storage) == 8 ? 4 : 16 / sizeof(typename A::Storage);
    const uint32_t* operands = list(w, op);
    const uint32_t rows = op.count, blocks = rows / 8;
    alignas(64) T a[16 * K], transposed[8 * K], b[K * 8], d[16 * 8];
    constexpr bool kPacked = sizeof(Accumulator) == 2;  // f16: a register holds two columns
    const uint32_t results = kPacked ? blocks : 2 * blocks;
    const uint32_t* at = operands + results;
    for (uint32_t k = 0; k < K; k += kWidth)
        for (uint32_t block = 0; block < blocks; ++block) unpack<A>(w, *at++, a + block * 8 * K + k, K);
    for (uint32_t k = 0; k < K; k += kWidth) unpack<B>(w, *at++, transposed + k, K);
    for (uint32_t k = 0; k < K; ++k)
        for (uint32_t n = 0; n < 8; ++n) b[k * 8 + n] = transposed[n * K + k];
    // A row of 8 columns belongs to 4 lanes, two columns each.
    for (uint32_t block = 0; block < blocks; ++block) {
        T* rows_of_block = d + block * 64;
        if constexpr (kPacked) {
            const uint16_t* c = row<uint16_t>(w, *at++);
            for (uint32_t i = 0; i < 64; ++i) rows_of_block[i] = to_float(f16{c[i]});
        } else {
            const Accumulator *even = row<Accumulator>(w, at[0]), *odd = row<Accumulator>(w, at[1]);
            at += 2;
            for (uint32_t i = 0; i < kLanes; ++i) {
                rows_of_block[2 * i] = even[i];
                rows_of_block[2 * i + 1] = odd[i];
            }
        }
    }
    if constexpr (Saturate)
        multiply_saturated<K>(rows, a, b, d);
    else
        multiply<T, K>(rows, a, b, d);
    for (uint32_t block = 0; block < blocks; ++block) {
        const T* rows_of_block = d + block * 64;
        if constexpr (kPacked) {
            uint16_t* to = result_row<uint16_t>(w, operands[block]);
            for (uint32_t i = 0; i < 64; ++i) {
                f16 half;
                from_float(rows_of_block[i], half);
                to[i] = half.bits;
            }
        } else {
            Accumulator *even = result_row<Accumulator>(w, operands[2 * block]),
                        *odd = result_row<Accumulator>(w, operands[2 * block + 1]);
            for (uint32_t i = 0; i < kLanes; ++i) {
                even[i] = rows_of_block[2 * i];
                odd[i] = rows_of_block[2 * i + 1];
            }
        }
    }
}
template <class A, class B, class Accumulator, bool Saturate = false>
void mma_op(Warp& w, const Op& op) {
    switch (op.value) {
        case 4:
            if constexpr (sizeof(typename A::Storage) >= 4) return mma_k<A, B, Accumulator, 4, Saturate>(w, op);
            break;
        case 8:
            if constexpr (sizeof(typename A::Storage) >= 2) return mma_k<A, B, Accumulator, 8, Saturate>(w, op);
            break;
        case 16:
            if constexpr (sizeof(typename A::Storage) != 4) return mma_k<A, B, Accumulator, 16, Saturate>(w, op);
            break;
        default:
            if constexpr (sizeof(typename A::Storage) == 1) return mma_k<A, B, Accumulator, 32, Saturate>(w, op);
            break;
    }
}
template <class A, class B>
Handler float_accumulator(Type accumulator) {
    return accumulator == Type::f16 ? mma_op<A, B, uint16_t> : mma_op<A, B, float>;
}
template <class A>
Handler integers(Type b, bool saturate) {
    if (b == Type::s8) return saturate ? mma_op<A, Integer8<int8_t>, int32_t, true> : mma_op<A, Integer8<int8_t>, int32_t>;
    return saturate ? mma_op<A, Integer8<uint8_t>, int32_t, true> : mma_op<A, Integer8<uint8_t>, int32_t>;
}
template <class A>
Handler float8(Type b, Type accumulator) {
    return b == Type::e4m3 ? float_accumulator<A, Float8<Type::e4m3>>(accumulator)
                           : float_accumulator<A, Float8<Type::e5m2>>(accumulator);
}

}  // namespace

Handler mma(Type a, Type b, Type accumulator, bool saturate) {
    switch (a) {
        case Type::f16: return float_accumulator<Half, Half>(accumulator);
        case Type::bf16: return mma_op<Brain, Brain, float>;
        case Type::tf32: return mma_op<Tensor32, Tensor32, float>;
        case Type::s8: return integers<Integer8<int8_t>>(b, saturate);
        case Type::u8: return integers<Integer8<uint8_t>>(b, saturate);
        case Type::e4m3: return float8<Float8<Type::e4m3>>(b, accumulator);
        case Type::e5m2: return float8<Float8<Type::e5m2>>(b, accumulator);
        case Type::f64: return mma_op<Double, Double, double>;
        default: return nullptr;
    }
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
