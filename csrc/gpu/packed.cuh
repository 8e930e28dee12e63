// Neighbouring numbers as one access of 1 to 16 bytes reads and writes them, aligned to its size; also those of images,
// which are bytes.
#pragma once
#include "gpu/convert.cuh"

namespace vlmk::gpu {

template <int kBytes>
struct Word;
template <>
struct Word<1> {
    using Type = uint8_t;
};
template <>
struct Word<2> {
    using Type = uint16_t;
};
template <>
struct Word<4> {
    using Type = uint32_t;
};
template <>
struct Word<8> {
    using Type = uint2;
};
template <>
struct Word<16> {
    using Type = uint4;
};

template <class T, int kCount>
struct Packed {
    static constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
    static constexpr int kWords = (kBytes + 3) / 4;
    using Access = typename Word<kBytes>::Type;

    uint32_t words[kWords] = {};

    VLMK_DEVICE static Packed load(const void* from) {
        const Access access = *static_cast<const Access*>(from);
        Packed made;
        if constexpr (kBytes == 16)
            made.words[0] = access.x, made.words[1] = access.y, made.words[2] = access.z, made.words[3] = access.w;
        else if constexpr (kBytes == 8)
            made.words[0] = access.x, made.words[1] = access.y;
        else
            made.words[0] = access;
        return made;
    }

    VLMK_DEVICE void store(void* to) const {
        Access& access = *static_cast<Access*>(to);
        if constexpr (kBytes == 16)
            access = make_uint4(words[0], words[1], words[2], words[3]);
        else if constexpr (kBytes == 8)
            access = make_uint2(words[0], words[1]);
        else
            access = static_cast<Access>(words[0]);
    }

    VLMK_DEVICE void store_to_shared(uint32_t address) const {
        if constexpr (kBytes == 16)
            asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(words[0]), "r"(words[1]),
                         "r"(words[2]), "r"(words[3])
                         : "memory");
        else if constexpr (kBytes == 8)
            asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(words[0]), "r"(words[1]) : "memory");
        else if constexpr (kBytes == 4)
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(words[0]) : "memory");
        else
            asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(static_cast<uint16_t>(words[0])) : "memory");
    }

    VLMK_DEVICE static Packed from_floats(const float (&values)[kCount]) {
        Packed made;
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) made.words[i] = __float_as_uint(values[i]);
        } else if constexpr (kCount == 1) {
            made.words[0] = from_float<T>(values[0]).bits;
        } else {
#pragma unroll
            for (int i = 0; i < kCount; i += 2) made.words[i / 2] = pack<T>(values[i], values[i + 1]);
        }
        return made;
    }

    VLMK_DEVICE float operator[](int i) const {
        if constexpr (sizeof(T) == 1) {
            return byte_to_float(words[i / 4], i % 4);
        } else if constexpr (sizeof(T) == 2) {
            return to_float(T{static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))});
        } else {
            return __uint_as_float(words[i]);
        }
    }
};

// Numbers of a row to shared memory, rounded to T, by as few accesses as there may be: `address` is aligned to all of
// them, or to 16 bytes.
template <class T, int kCount>
VLMK_DEVICE void store_numbers(uint32_t address, const float (&values)[kCount]) {
    constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
    constexpr int kPart = kBytes <= 16 ? kCount : 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int i = 0; i < kCount; i += kPart)
        Packed<T, kPart>::from_floats(reinterpret_cast<const float (&)[kPart]>(values[i]))
            .store_to_shared(address + i * static_cast<int>(sizeof(T)));
}

}  // namespace vlmk::gpu
