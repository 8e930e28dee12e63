// What the tiles of a chunk left behind, put together: a thread a row or a column. Strips are added in their order, and
// chunks in theirs.
#include "contrastive/gpu_tiles.h"
#include "contrastive/launch.h"
#include "contrastive/planes.h"
#include "gpu/exp2.cuh"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {
namespace {

template <class Number = float>
VLMK_DEVICE Number sum_of_strips(const Partials& from, int plane, int index) {
    Number sum = 0;
#pragma unroll 8
    for (int strip = 0; strip < from.strips; ++strip) sum += from.at(plane, strip)[index];
    return sum;
}

// log(sum of exponentials) over the strips.
VLMK_DEVICE float logsumexp_of_strips(const Partials& from, int index) {
    float largest = -infinity(), sum = 0.0f;
#pragma unroll 8
    for (int strip = 0; strip < from.strips; ++strip) largest = fmaxf(largest, from.at(kMaximum, strip)[index]);
    if (largest == -infinity()) largest = 0.0f;
#pragma unroll 8
    for (int strip = 0; strip < from.strips; ++strip)
        sum += from.at(kExponentials, strip)[index] * exp2((from.at(kMaximum, strip)[index] - largest) * kLog2E);
    return largest + logf(sum);
}

VLMK_DEVICE float log_add(float a, float b) {
    const float larger = fmaxf(a, b);
    return larger == -infinity() ? larger : larger + logf(exp2((a - larger) * kLog2E) + exp2((b - larger) * kLog2E));
}

// Line `index` of the chunk into `at` of the whole. Until the last chunk, targets and means are sums.
VLMK_DEVICE void merge_line(const Partials& from, int index, const Statistics& to, int64_t at, int64_t others,
                            bool first, bool last) {
    float lse = logsumexp_of_strips(from, index), target = sum_of_strips(from, kTarget, index),
          total = sum_of_strips(from, kTotal, index), positives = sum_of_strips(from, kPositives, index);
    if (!first) {
        lse = log_add(to.logsumexp[at], lse);
        target += to.target[at];
        total += to.mean[at];
        positives += to.positives[at];
    }
    to.logsumexp[at] = lse;
    to.target[at] = last && positives > 0.0f ? target / positives : target;
    to.mean[at] = last && others > 0 ? total / static_cast<float>(others) : total;
    to.positives[at] = positives;
}

// The exponent e of a number in [2^(e - 1), 2^e); 0 of what has none.
VLMK_DEVICE int exponent_of(float value) {
    int exponent = 0;
    if (value > 0.0f && value < infinity()) frexpf(value, &exponent);
    return exponent;
}

VLMK_DEVICE float largest_magnitude(const float* values, int64_t count) {
    float largest = 0.0f;
    if (values != nullptr)
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < count; i += kRangeThreads) largest = fmaxf(largest, fabsf(values[i]));
    return largest;
}

VLMK_DEVICE float reduce_max_over_block(float value) {
    __shared__ float warps[kRangeThreads / kWarpLanes];
    __syncthreads();
    value = reduce_max(value);
    if (lane_index() == 0) warps[threadIdx.x / kWarpLanes] = value;
    __syncthreads();
    return reduce_max(warps[lane_index()]);
}

}  // namespace
}  // namespace vlmk::gpu

using namespace vlmk;
using namespace vlmk::gpu;

extern "C" __global__ void __launch_bounds__(kMergeLossThreads)
    contrastive_merge_statistics(const __grid_constant__ InfoNceLaunch launch) {
    const InfoNceProblem& p = launch.problem;
    const Chunk& c = launch.chunk;
    const int row_blocks = (c.rows + kMergeLossThreads - 1) / kMergeLossThreads;
    const bool rows = static_cast<int>(blockIdx.x) < row_blocks;
    const int index =
        (static_cast<int>(blockIdx.x) - (rows ? 0 : row_blocks)) * kMergeLossThreads + static_cast<int>(threadIdx.x);
    if (index >= (rows ? c.rows : c.columns)) return;
    if (rows)
        merge_line(c.row_partials, index, p.rows, c.first_row + index, p.text.count, c.first_columns, c.last_columns);
    else
        merge_line(c.column_partials, index, p.columns, c.first_column + index, p.image.count, c.first_rows,
                   c.last_rows);
}

// Losses and the gradients of scale and bias, of rows.
extern "C" __global__ void __launch_bounds__(kMergeLossThreads)
    contrastive_merge_rows(const __grid_constant__ SigmoidLaunch launch) {
    const SigmoidProblem& p = launch.problem;
    const Chunk& c = launch.chunk;
    const int index = static_cast<int>(blockIdx.x * kMergeLossThreads + threadIdx.x), row = c.first_row + index;
    if (index >= c.rows) return;
    const bool first = c.first_columns;
    if (p.scale_dot != nullptr)
        p.scale_dot[row] = (first ? 0.0f : p.scale_dot[row]) + sum_of_strips(c.row_partials, kDot, index);
    if (p.grad_bias != nullptr)
        p.grad_bias[row] = (first ? 0.0f : p.grad_bias[row]) + sum_of_strips(c.row_partials, kGradient, index);
    if (p.row_loss != nullptr)
        p.row_loss[row] = (first ? 0.0 : p.row_loss[row]) + sum_of_strips<double>(c.row_partials, kLoss, index);
}

// One block. G is at most 6 times the largest weight, and is brought to 2^12 times its own: fp16 then holds
// probabilities down to 2^-26 with all its bits.
extern "C" __global__ void __launch_bounds__(kRangeThreads)
    contrastive_range(const __grid_constant__ RangeLaunch launch) {
    float weight = 0.0f;
    for (int i = 0; i < RangeLaunch::kWeights; ++i)
        weight = fmaxf(weight, largest_magnitude(launch.weights[i], launch.weight_counts[i]));
    int exponent = exponent_of(reduce_max_over_block(weight));
    for (int i = 0; i < 2; ++i)
        exponent += exponent_of(reduce_max_over_block(largest_magnitude(launch.factors[i], launch.factor_counts[i])));
    exponent = min(max(exponent, -100), 100);
    if (threadIdx.x == 0) *launch.range = {ldexpf(1.0f, 12 - exponent), ldexpf(1.0f, exponent - 12)};
}
