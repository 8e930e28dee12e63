// mma.sync. Every fragment register holds, lane after lane, a block of 8 rows (of A) or columns (of B) by 16 bytes of
// k; blocks follow one another first along m, then along k. So one routine unpacks all types and shapes.
//
// D = A B + C: products are exact, the sum starts at C and takes the products in the order of k, rounded to fp32 each
// time. Hardware adds several products at once with fewer bits; no program may rely on its order.
#include "emulator/lanes/apply.h"
#include "emulator/narrow.h"

#if defined(__F16C__) && defined(__AVX2__)
#include <immintrin.h>
#endif

namespace vlmk::emulator::VLMK_EMULATOR_ISA {
namespace {

constexpr uint32_t kMaxK = 32;

constexpr uint32_t size_of_element(Type type) {
    switch (type) {
        case Type::f16:
        case Type::bf16:
            return 2;
        case Type::tf32:
            return 4;
        default:
            return 1;
    }
}

// One register into 8 lines of values at `to`, `stride` apart.
template <class Storage, class T, class Convert>
void unpack_lines(const Warp& w, uint32_t operand, T* to, uint32_t stride, const Convert& convert) {
    constexpr uint32_t kWidth = sizeof(Storage) == 8 ? 4 : 16 / sizeof(Storage);
    const auto* from = row<Storage>(w, operand);
    for (uint32_t line = 0; line < 8; ++line)
        for (uint32_t i = 0; i < kWidth; ++i) to[line * stride + i] = convert(from[line * kWidth + i]);
}
struct Float8Tables {
    float e4m3[256], e5m2[256];
    Float8Tables() {
        for (uint32_t i = 0; i < 256; ++i) {
            e4m3[i] = static_cast<float>(from_float_bits(i, Type::e4m3));
            e5m2[i] = static_cast<float>(from_float_bits(i, Type::e5m2));
        }
    }
};
const Float8Tables& float8() {
    static const Float8Tables tables;
    return tables;
}

void unpack(const Warp& w, Type type, uint32_t operand, float* to, uint32_t stride) {
    switch (type) {
        case Type::f16:
#if defined(__F16C__) && defined(__AVX2__)
            for (uint32_t line = 0; line < 8; ++line)
                _mm256_storeu_ps(to + static_cast<size_t>(line) * stride,
                                 _mm256_cvtph_ps(_mm_load_si128(row<__m128i>(w, operand) + line)));
#else
            unpack_lines<uint16_t>(w, operand, to, stride, [](uint16_t bits) { return to_float(f16{bits}); });
#endif
            break;
        case Type::bf16:
            unpack_lines<uint16_t>(w, operand, to, stride, [](uint16_t bits) { return to_float(bf16{bits}); });
            break;
        case Type::tf32:  // the low 13 bits are not looked at
            unpack_lines<uint32_t>(w, operand, to, stride,
                                   [](uint32_t bits) { return bits_to_float(bits & ~0x1fffU); });
            break;
        default: {
            const float* table = type == Type::e4m3 ? float8().e4m3 : float8().e5m2;
            unpack_lines<uint8_t>(w, operand, to, stride, [table](uint8_t bits) { return table[bits]; });
        }
    }
}
void unpack(const Warp& w, Type type, uint32_t operand, int32_t* to, uint32_t stride) {
    if (type == Type::s8)
        unpack_lines<int8_t>(w, operand, to, stride, [](int8_t x) { return static_cast<int32_t>(x); });
    else
        unpack_lines<uint8_t>(w, operand, to, stride, [](uint8_t x) { return static_cast<int32_t>(x); });
}
void unpack(const Warp& w, Type, uint32_t operand, double* to, uint32_t stride) {
    unpack_lines<double>(w, operand, to, stride, [](double x) { return x; });
}

inline float multiply_add(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;  // the product is exact anyway
#endif
}
[[maybe_unused]] inline double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline int32_t multiply_add(int32_t a, int32_t b, int32_t c) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b) + static_cast<uint32_t>(c));
}

// d (rows x 8) += a (rows x k) b (k x 8)
template <class T>
void multiply(uint32_t rows, uint32_t depth, const T* a, const T* b, T* d) {
    for (uint32_t i = 0; i < rows; i += 8) {
        T sum[8][8];
        for (uint32_t r = 0; r < 8; ++r)
            for (uint32_t n = 0; n < 8; ++n) sum[r][n] = d[(i + r) * 8 + n];
        for (uint32_t k = 0; k < depth; ++k)
            for (uint32_t r = 0; r < 8; ++r)
                for (uint32_t n = 0; n < 8; ++n)
                    sum[r][n] = multiply_add(a[(i + r) * depth + k], b[k * 8 + n], sum[r][n]);
        for (uint32_t r = 0; r < 8; ++r)
            for (uint32_t n = 0; n < 8; ++n) d[(i + r) * 8 + n] = sum[r][n];
    }
}
#if defined(__FMA__) && defined(__AVX2__)
template <>
void multiply<float>(uint32_t rows, uint32_t depth, const float* a, const float* b, float* d) {
    for (uint32_t i = 0; i < rows; i += 8) {
        __m256 sum[8];  // a row each; unrolled, they stay in registers
#pragma GCC unroll 8
        for (uint32_t r = 0; r < 8; ++r) sum[r] = _mm256_load_ps(d + (i + r) * 8);
        for (uint32_t k = 0; k < depth; ++k) {
            const __m256 line = _mm256_load_ps(b + k * 8);
#pragma GCC unroll 8
            for (uint32_t r = 0; r < 8; ++r)
                sum[r] = _mm256_fmadd_ps(_mm256_broadcast_ss(a + (i + r) * depth + k), line, sum[r]);
        }
#pragma GCC unroll 8
        for (uint32_t r = 0; r < 8; ++r) _mm256_store_ps(d + (i + r) * 8, sum[r]);
    }
}
#endif
// Sums of 64-bit products, saturated once at the end.
void multiply_saturated(uint32_t rows, uint32_t depth, const int32_t* a, const int32_t* b, int32_t* d) {
    for (uint32_t i = 0; i < rows; ++i)
        for (uint32_t n = 0; n < 8; ++n) {
            int64_t sum = d[i * 8 + n];
            for (uint32_t k = 0; k < depth; ++k) sum += int64_t{a[i * depth + k]} * b[k * 8 + n];
            d[i * 8 + n] = static_cast<int32_t>(sum < INT32_MIN ? INT32_MIN : sum > INT32_MAX ? INT32_MAX : sum);
        }
}
template <class T>
void transpose(uint32_t depth, const T* from, T* to) {
    for (uint32_t k = 0; k < depth; ++k)
        for (uint32_t n = 0; n < 8; ++n) to[k * 8 + n] = from[n * depth + k];
}

// Operands in the op's list: D registers, A registers, B registers, C registers. op.count is m, op.value is k, op.a and
// op.b are the types. T is what is multiplied and added, C the type of the accumulators' registers.
template <class T, class C>
void run(Warp& w, const Op& op) {
    const auto a_type = static_cast<Type>(op.a), b_type = static_cast<Type>(op.b);
    const auto depth = static_cast<uint32_t>(op.value);
    const uint32_t width = sizeof(T) == 8 ? 4 : 16 / size_of_element(a_type);
    const uint32_t* operands = list(w, op);
    const uint32_t rows = op.count, blocks = rows / 8;
    alignas(64) T a[16 * kMaxK], transposed[8 * kMaxK], b[kMaxK * 8], d[16 * 8];
    constexpr bool kPacked = sizeof(C) == 2;  // f16: a register holds two columns
    const uint32_t* at = operands + (kPacked ? blocks : 2 * blocks);
    for (uint32_t k = 0; k < depth; k += width)
        for (uint32_t block = 0; block < blocks; ++block) unpack(w, a_type, *at++, a + block * 8 * depth + k, depth);
    for (uint32_t k = 0; k < depth; k += width) unpack(w, b_type, *at++, transposed + k, depth);
    if (depth == 16)  // so that the compiler knows the commonest
        transpose(16, transposed, b);
    else
        transpose(depth, transposed, b);
    // A row of 8 columns belongs to 4 lanes, two columns each.
    for (uint32_t block = 0; block < blocks; ++block) {
        T* rows_of_block = d + block * 64;
        if constexpr (kPacked) {
            const uint16_t* c = row<uint16_t>(w, *at++);
            for (uint32_t i = 0; i < 64; ++i) rows_of_block[i] = to_float(f16{c[i]});
        } else {
            const C *even = row<C>(w, at[0]), *odd = row<C>(w, at[1]);
            at += 2;
            for (uint32_t i = 0; i < kLanes; ++i) {
                rows_of_block[2 * i] = even[i];
                rows_of_block[2 * i + 1] = odd[i];
            }
        }
    }
    if constexpr (sizeof(T) == 4 && std::is_integral_v<T>) {
        if (op.c != 0)
            multiply_saturated(rows, depth, a, b, d);
        else
            multiply(rows, depth, a, b, d);
    } else {
        multiply(rows, depth, a, b, d);
    }
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
            C *even = result_row<C>(w, operands[2 * block]), *odd = result_row<C>(w, operands[2 * block + 1]);
            for (uint32_t i = 0; i < kLanes; ++i) {
                even[i] = rows_of_block[2 * i];
                odd[i] = rows_of_block[2 * i + 1];
            }
        }
    }
}

}  // namespace

Handler mma(Type a, Type accumulator) {
    switch (a) {
        case Type::f64:
            return run<double, double>;
        case Type::s8:
        case Type::u8:
            return run<int32_t, int32_t>;
        default:
            return accumulator == Type::f16 ? run<float, uint16_t> : run<float, float>;
    }
}

}  // namespace vlmk::emulator::VLMK_EMULATOR_ISA
