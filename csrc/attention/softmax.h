// The online softmax of one row, in powers of two.
#pragma once
#include "simd/math.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {

// What a row has seen so far: largest score and sum of 2^(score - max).
struct RowState {
    float max = -kInfinity;
    float sum = 0.0f;
};

// Largest of `padded` numbers, two chains side by side.
inline float row_max(const float* row, int64_t padded) {
    Vec even = splat(-kInfinity), odd = even;
    int64_t j = 0;
    for (; j + 2 * kLanes <= padded; j += 2 * kLanes) {
        even = max(even, load(row + j));
        odd = max(odd, load(row + j + kLanes));
    }
    if (j < padded) even = max(even, load(row + j));
    return reduce_max(max(even, odd));
}

// Probabilities 2^(factor * score - new max) of `padded` columns, written as left-hand side of P V (in place where
// units are floats); the factor is positive. Updates the state and returns the factor that earlier results of the row
// need.
template <class U>
inline float online_softmax(const float* scores, int64_t padded, float factor, RowState& state,
                            typename U::Unit* probabilities) {
    const float block_max = row_max(scores, padded) * factor;
    const float new_max = state.max > block_max ? state.max : block_max;
    // A row that has seen nothing keeps the maximum -inf; subtracting 0 instead makes its probabilities 2^-inf = 0.
    const float reference = new_max == -kInfinity ? 0.0f : new_max;
    Vec sum{};
    write_units<U>(probabilities, padded, [&](int64_t j) {
        const Vec p = exp2_nonpositive(load(scores + j) * splat(factor) - splat(reference));
        sum += p;
        return p;
    });
    const float rescale = state.sum == 0.0f ? 0.0f : exp2(splat(state.max - reference))[0];
    state.max = new_max;
    state.sum = state.sum * rescale + reduce_add(sum);
    return rescale;
}

// Natural logarithm of the sum of exponentials; -inf for a row that saw nothing.
inline float logsumexp(const RowState& state) {
    if (state.sum == 0.0f) return -kInfinity;
    // Split so that a large maximum does not swallow the logarithm's last bits twice.
    return state.max * kLn2 + log(splat(state.sum))[0];
}

}  // namespace vlmk::VLMK_ISA
