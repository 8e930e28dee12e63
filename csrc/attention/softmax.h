// The online softmax of one row, in powers of two.
#pragma once
#include "simd/convert.h"
#include "simd/math.h"

namespace vlmk::VLMK_ISA {

// What a row has seen so far: largest score and sum of 2^(score - max).
struct RowState {
    float max = -kInfinity;
    float sum = 0.0f;
};

// scores -> probabilities 2^(score - new max) in place, over `padded` columns. Updates the state and returns the factor
// that earlier results of the row need.
inline float online_softmax(float* scores, int64_t padded, RowState& state) {
    Vec largest = splat(-kInfinity);
    for (int64_t j = 0; j < padded; j += kLanes) largest = max(largest, load(scores + j));
    const float block_max = reduce_max(largest);
    const float new_max = state.max > block_max ? state.max : block_max;
    // A row that has seen nothing keeps the maximum -inf; subtracting 0 instead makes its probabilities 2^-inf = 0.
    const float reference = new_max == -kInfinity ? 0.0f : new_max;
    Vec sum{};
    for (int64_t j = 0; j < padded; j += kLanes) {
        const Vec p = exp2(load(scores + j) - splat(reference));
        store(scores + j, p);
        sum += p;
    }
    const float factor = exp2(splat(state.max - reference))[0];
    state.max = new_max;
    state.sum = state.sum * factor + reduce_add(sum);
    return factor;
}

// Natural logarithm of the sum of exponentials; -inf for a row that saw nothing.
inline float logsumexp(const RowState& state) {
    if (state.sum == 0.0f) return -kInfinity;
    // Split so that a large maximum does not swallow the logarithm's last bits twice.
    return state.max * kLn2 + log(splat(state.sum))[0];
}

}  // namespace vlmk::VLMK_ISA
