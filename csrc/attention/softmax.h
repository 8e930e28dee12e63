// The online softmax of a vector of query rows, one row a lane, in powers of two: nothing is added up across lanes.
#pragma once
#include "simd/math.h"
#include "simd/units.h"

namespace vlmk::VLMK_ISA {

// Scores may exceed the reference by so much, in powers of two, before it follows them: no probability leaves the range
// of any dtype, and what was added up before seldom has to be scaled again.
constexpr float kSlack = 8.0f;

// What kLanes rows have seen so far: the sum of 2^(score - reference). The reference is a score, at most kSlack below
// the largest; -inf where nothing was seen.
struct SoftmaxState {
    Vec reference = splat(-kInfinity);
    Vec sum = {};
};

// Largest of `keys` vectors, several chains side by side.
inline Vec column_max(const float* scores, int64_t stride, int64_t keys) {
    constexpr int kChains = 4;
    Vec largest[kChains];
    VLMK_UNROLL for (int i = 0; i < kChains; ++i) largest[i] = splat(-kInfinity);
    int64_t j = 0;
    for (; j + kChains <= keys; j += kChains)
        VLMK_UNROLL for (int i = 0; i < kChains; ++i) largest[i] = max(largest[i], load(scores + (j + i) * stride));
    for (; j < keys; ++j) largest[0] = max(largest[0], load(scores + j * stride));
    return max(max(largest[0], largest[1]), max(largest[2], largest[3]));
}

// Probabilities 2^(factor * score - reference) of `keys` keys, written as units of the right-hand side of V^T P^T (in
// place where units are floats), zeros up to the end of the depth; the factor is positive. `scores` and `probabilities`
// point at one vector of rows; keys (units) are `stride` numbers apart. Updates the state; where the reference moves,
// `scale_before` receives the factor that earlier results of the rows need.
template <class U, class Scale>
inline void online_softmax(const float* scores, int64_t stride, int64_t keys, float factor, SoftmaxState& state,
                           typename U::Unit* probabilities, const Scale& scale_before) {
    const Vec largest = column_max(scores, stride, keys) * splat(factor);
    if (any(largest > state.reference + splat(kSlack))) {
        const Vec before = state.reference;
        state.reference = max(largest, before);
        // A row that has seen nothing has no sum to scale (and -inf - -inf is NaN).
        const Vec rescale = select((IntVec)(state.sum == Vec{}), Vec{}, exp2(before - state.reference));
        state.sum = state.sum * rescale;
        scale_before(rescale);
    }
    // A row that has seen nothing keeps the reference -inf; subtracting 0 instead makes its probabilities 2^-inf = 0.
    const Vec reference = select((IntVec)(state.reference == splat(-kInfinity)), Vec{}, state.reference);
    Vec first_sum{}, second_sum{};
    const auto probability = [&](int64_t key) {
        return exp2_nonpositive(load(scores + key * stride) * splat(factor) - reference);
    };
    const auto write = [&](int64_t unit, Vec first, Vec second) {
        first_sum += first;
        if constexpr (U::kDepth > 1) second_sum += second;
        const auto made = make_units<U>(first, second);
        VLMK_UNROLL for (int n = 0; n < U::kParts; ++n)
            store_as(probabilities + unit_index<U>(unit, n) * stride, made.part[n]);
    };
    constexpr int64_t kGroup = U::kDepth * U::kDepthStep;  // the keys of a step in depth
    const int64_t count = units<U>(keys) / U::kParts, whole = keys / kGroup * U::kDepthStep;
    for (int64_t i = 0; i < whole; ++i) {
        const int64_t key = first_element<U>(i);
        if constexpr (U::kDepth == 1)
            write(i, probability(key), Vec{});
        else
            write(i, probability(key), probability(key + kPairDistance<U>));
    }
    const auto probability_or_zero = [&](int64_t key) { return key < keys ? probability(key) : Vec{}; };
    for (int64_t i = whole; i < count; ++i) {
        const int64_t key = first_element<U>(i);
        write(i, probability_or_zero(key), probability_or_zero(key + kPairDistance<U>));
    }
    state.sum += first_sum + second_sum;
}

// Natural logarithm of the sum of exponentials; -inf for a row that saw nothing.
inline Vec logsumexp(const SoftmaxState& state) {
    // Split so that a large reference does not swallow the logarithm's last bits twice.
    const Vec seen = state.reference * splat(kLn2) + log(state.sum);
    return select((IntVec)(state.sum == Vec{}), splat(-kInfinity), seen);
}

}  // namespace vlmk::VLMK_ISA
