// What the tiles of a chunk left behind, put together: a lane a row or a column, each of a block's warps a part of the
// strips, then one warp all parts. Strips are added in a fixed order, and chunks in theirs.
#include "contrastive/gpu_tiles.h"
#include "contrastive/launch.h"
#include "contrastive/planes.h"
#include "gpu/exp2.cuh"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {
namespace {

VLMK_DEVICE int part_index() { return static_cast<int>(threadIdx.x) / kMergeLines; }

// The sum over a part of the strips; of all parts, once every thread has called it, for the first part.
VLMK_DEVICE double sum_of_strips(const Partials& from, int plane, int index, bool live) {
    __shared__ double parts[kMergeParts][kMergeLines];
    double sum = 0.0;
    if (live)
#pragma unroll 8
        for (int strip = part_index(); strip < from.strips; strip += kMergeParts) sum += from.at(plane, strip)[index];
    __syncthreads();
    parts[part_index()][lane_index()] = sum;
    __syncthreads();
    sum = 0.0;
    for (const auto& part : parts) sum += part[lane_index()];
    return sum;
}

// A sum of exponentials: sum * exp(largest).
struct Exponentials {
    float largest = -infinity(), sum = 0.0f;

    VLMK_DEVICE float logarithm() const { return (largest == -infinity() ? 0.0f : largest) + logf(sum); }
};

// Of numbers (largest, sum) that at(i) gives for i = begin, begin + step, ...
template <class At>
VLMK_DEVICE Exponentials add_exponentials(int begin, int end, int step, const At& at) {
    Exponentials all;
#pragma unroll 8
    for (int i = begin; i < end; i += step) all.largest = fmaxf(all.largest, at(i).largest);
    const float reference = all.largest == -infinity() ? 0.0f : all.largest;
#pragma unroll 8
    for (int i = begin; i < end; i += step) {
        const Exponentials one = at(i);
        all.sum += one.sum * exp2((one.largest - reference) * kLog2E);
    }
    return all;
}

VLMK_DEVICE Exponentials exponentials_of_strips(const Partials& from, int index, bool live) {
    __shared__ float parts[2][kMergeParts][kMergeLines];
    const int lane = lane_index();
    const Exponentials part = add_exponentials(part_index(), live ? from.strips : 0, kMergeParts, [&](int strip) {
        return Exponentials{from.at(kMaximum, strip)[index], from.at(kExponentials, strip)[index]};
    });
    parts[0][part_index()][lane] = part.largest;
    parts[1][part_index()][lane] = part.sum;
    __syncthreads();
    return add_exponentials(0, kMergeParts, 1,
                            [&](int i) { return Exponentials{parts[0][i][lane], parts[1][i][lane]}; });
}

// Line `index` of the chunk into `at` of the whole. Until the last chunk, targets and means are sums.
VLMK_DEVICE void merge_line(const Partials& from, int index, bool live, const Statistics& to, int64_t at,
                            int64_t others, bool first, bool last) {
    float lse = exponentials_of_strips(from, index, live).logarithm();
    float target = static_cast<float>(sum_of_strips(from, kTarget, index, live)),
          total = static_cast<float>(sum_of_strips(from, kTotal, index, live)),
          positives = static_cast<float>(sum_of_strips(from, kPositives, index, live));
    if (!live || part_index() > 0) return;
    if (!first) {
        const float before = to.logsumexp[at];
        lse = add_exponentials(0, 2, 1, [&](int i) { return Exponentials{i == 0 ? before : lse, 1.0f}; }).logarithm();
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
    const int row_blocks = (c.rows + kMergeLines - 1) / kMergeLines, block = static_cast<int>(blockIdx.x);
    const bool rows = block < row_blocks;
    const int index = (rows ? block : block - row_blocks) * kMergeLines + lane_index();
    const bool live = index < (rows ? c.rows : c.columns);
    if (rows)
        merge_line(c.row_partials, index, live, p.rows, c.first_row + index, p.text.count, c.first_columns,
                   c.last_columns);
    else
        merge_line(c.column_partials, index, live, p.columns, c.first_column + index, p.image.count, c.first_rows,
                   c.last_rows);
}

// Losses and the gradients of scale and bias, of rows.
extern "C" __global__ void __launch_bounds__(kMergeLossThreads)
    contrastive_merge_rows(const __grid_constant__ SigmoidLaunch launch) {
    const SigmoidProblem& p = launch.problem;
    const Chunk& c = launch.chunk;
    const int index = static_cast<int>(blockIdx.x) * kMergeLines + lane_index(), row = c.first_row + index;
    const bool live = index < c.rows, writes = live && part_index() == 0;
    const auto merge = [&](auto* to, RowPlane plane) {
        if (to == nullptr) return;
        const double sum = sum_of_strips(c.row_partials, plane, index, live);
        if (writes) to[row] = (c.first_columns ? 0 : to[row]) + sum;
    };
    merge(p.scale_dot, kDot);
    merge(p.grad_bias, kGradient);
    merge(p.row_loss, kLoss);
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
