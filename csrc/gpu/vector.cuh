// Several neighbouring elements of a tensor read or written by one instruction, as fp32 in registers.
#pragma once
#include "gpu/convert.cuh"

namespace vlmk::gpu {

constexpr int kVectorBytes = 16;

// Elements of a full 16-byte access.
template <class T>
constexpr int kVectorElements = kVectorBytes / static_cast<int>(sizeof(T));

// kCount is 1, or kVectorElements<T> with 16-byte aligned `from`.
template <int kCount, class T>
VLMK_DEVICE void load(const T* from, float (&values)[kCount]) {
    if constexpr (kCount == 1) {
        values[0] = to_float(*from);
    } else if constexpr (sizeof(T) == 4) {
        const float4 four = *reinterpret_cast<const float4*>(from);
        values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
    } else {
        const uint4 words = *reinterpret_cast<const uint4*>(from);
        unpack<T>(words.x, values[0], values[1]);
        unpack<T>(words.y, values[2], values[3]);
        unpack<T>(words.z, values[4], values[5]);
        unpack<T>(words.w, values[6], values[7]);
    }
}

template <int kCount, class T>
VLMK_DEVICE void store(T* to, const float (&values)[kCount]) {
    if constexpr (kCount == 1) {
        *to = from_float<T>(values[0]);
    } else if constexpr (sizeof(T) == 4) {
        *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
    } else {
        *reinterpret_cast<uint4*>(to) = make_uint4(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]),
                                                   pack<T>(values[4], values[5]), pack<T>(values[6], values[7]));
    }
}

}  // namespace vlmk::gpu
