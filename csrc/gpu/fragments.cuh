// Operands of one tensor-core instruction, D += A B, spread over a warp: A is 16 x kDepth, B is kDepth x 8, D is 16
// x 8. Types keep element type and depth, so that a wrong pairing does not compile. Where each lane's elements are,
// with g = lane / 4 and t = lane % 4:
//
//     D      v[i]   row g + 8 (i / 2), column 2t + i % 2
//     A      r[i]   row g + 8 (i % 2), the elements of one register next to each other from column (t + 4 (i / 2)) *
//     elements B      r[i]   column g, the elements of one register next to each other from row (t + 4 i) * elements
#pragma once
#include "gpu/convert.cuh"

namespace vlmk::gpu {

// fp32 as tensor cores read it: to_tf32 makes the bits.
struct tf32 {
    uint32_t bits;
};

template <class T, int kDepth>
struct LeftFragment {
    static constexpr int kRegisters = kDepth * static_cast<int>(sizeof(T)) / 8;
    uint32_t r[kRegisters];
};

template <class T, int kDepth>
struct RightFragment {
    static constexpr int kRegisters = kDepth * static_cast<int>(sizeof(T)) / 16;
    uint32_t r[kRegisters];
};

// Number is float, or int32_t for products of int8.
template <class Number = float>
struct Accumulator {
    Number v[4] = {};

    VLMK_DEVICE static int row(int i) { return lane_index() / 4 + 8 * (i / 2); }
    VLMK_DEVICE static int column(int i) { return lane_index() % 4 * 2 + i % 2; }
};

// Results as the left operand of a next product, without leaving the registers: 16 columns of D, rounded, are one A.
template <class T>
VLMK_DEVICE LeftFragment<T, 16> as_left(const Accumulator<>& first, const Accumulator<>& second) {
    return {{pack<T>(first.v[0], first.v[1]), pack<T>(first.v[2], first.v[3]), pack<T>(second.v[0], second.v[1]),
             pack<T>(second.v[2], second.v[3])}};
}
template <class T>
VLMK_DEVICE LeftFragment<T, 8> as_left(const Accumulator<>& only) {
    return {{pack<T>(only.v[0], only.v[1]), pack<T>(only.v[2], only.v[3])}};
}

}  // namespace vlmk::gpu
