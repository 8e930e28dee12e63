// Merging split attention on the GPU, forward and backward: kLanes lanes a row, kWide elements of it at once.
#include "gpu/exp2.cuh"
#include "gpu/reduce.cuh"
#include "gpu/vector.cuh"
#include "merge_attention/problem.h"
#include "merge_attention/tiles.h"

namespace vlmk::gpu {
namespace {

// A row and the lanes that share it. Lanes past the last row shadow it, so that shuffles stay whole, and store nothing.
template <int kLanes>
struct Row {
    const MergeProblem& p;
    int lane;
    bool live;
    int64_t index[kMergeDims];

    VLMK_DEVICE explicit Row(const MergeProblem& problem) : p(problem), lane(static_cast<int>(threadIdx.x) % kLanes) {
        const uint32_t row = blockIdx.x * (kMergeThreads / kLanes) + threadIdx.x / kLanes;
        const uint32_t last = static_cast<uint32_t>(p.row_count()) - 1;
        live = row <= last;
        p.find_row(live ? row : last, index);
    }

    template <class T>
    VLMK_DEVICE T* of(const SplitTensor& t) const {
        return static_cast<T*>(t.data) + t.offset(index);
    }
};

// exp(lse - reference)
VLMK_DEVICE float weight(float lse, float reference) { return exp2((lse - reference) * kLog2E); }

// What to subtract before exp: nothing where there is only -inf, whose weights are then 0 and not NaN.
VLMK_DEVICE float guarded(float largest) { return largest == -infinity() ? 0.0f : largest; }

template <class T, int kLanes, int kWide>
VLMK_DEVICE void merge_forward(const MergeProblem& p) {
    const Row<kLanes> row(p);
    const int splits = static_cast<int>(p.splits), head_dim = static_cast<int>(p.head_dim);
    const float* lses = row.template of<const float>(p.lses);
    const int64_t next_lse = p.lses.split_stride, next_part = p.outputs.split_stride;

    float largest = -infinity();
#pragma unroll 1
    for (int i = row.lane; i < splits; i += kLanes) largest = fmaxf(largest, lses[i * next_lse]);
    const float reference = guarded(reduce_max<kLanes>(largest));
    float sum = 0.0f;
#pragma unroll 1
    for (int i = row.lane; i < splits; i += kLanes) sum += weight(lses[i * next_lse], reference);
    sum = reduce_add<kLanes>(sum);
    if (row.live && row.lane == 0) *row.template of<float>(p.lse) = reference + logf(sum);

    const float normalise = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll 1
    for (int c = row.lane * kWide; c < head_dim; c += kLanes * kWide) {
        const float* lse = lses;
        const T* outputs = row.template of<const T>(p.outputs) + c;
        float merged[kWide] = {};
        // Four splits at a time, so that their loads are under way together.
#pragma unroll 4
        for (int i = 0; i < splits; ++i, lse += next_lse, outputs += next_part) {
            const float w = weight(*lse, reference);
            if (w == 0.0f) continue;
            float part[kWide];
            load(outputs, part);
            for (int k = 0; k < kWide; ++k) merged[k] += w * part[k];
        }
        for (int k = 0; k < kWide; ++k) merged[k] *= normalise;
        if (row.live) store(row.template of<T>(p.out) + c, merged);
    }
}

// d out_i = w_i dout,  d lse_i = w_i (<dout, out_i> - sum_j w_j <dout, out_j> + dlse)
template <class T, int kLanes, int kWide>
VLMK_DEVICE void merge_backward(const MergeProblem& p) {
    const Row<kLanes> row(p);
    const int splits = static_cast<int>(p.splits), head_dim = static_cast<int>(p.head_dim);
    const float* lses = row.template of<const float>(p.lses);
    float* grad_lses = row.template of<float>(p.grad_lses);
    const T* grad_out = row.template of<const T>(p.grad_out);
    const T* outputs = row.template of<const T>(p.outputs);
    T* grad_outputs = row.template of<T>(p.grad_outputs);
    const float reference = guarded(*row.template of<const float>(p.lse));

    float mean = 0.0f;
#pragma unroll 1
    for (int i = 0; i < splits; ++i, outputs += p.outputs.split_stride, grad_outputs += p.grad_outputs.split_stride) {
        const float w = weight(lses[i * p.lses.split_stride], reference);
        float dot = 0.0f;
#pragma unroll 1
        for (int c = row.lane * kWide; c < head_dim; c += kLanes * kWide) {
            float gradient[kWide], part[kWide] = {};
            load(grad_out + c, gradient);
            if (w != 0.0f) load(outputs + c, part);
            for (int k = 0; k < kWide; ++k) {
                dot += gradient[k] * part[k];
                gradient[k] *= w;
            }
            if (row.live) store(grad_outputs + c, gradient);
        }
        dot = reduce_add<kLanes>(dot);
        mean += w * dot;
        // The products wait where their gradients go, until the mean is known; each lane reads back what it wrote.
        if (row.live && row.lane == i % kLanes) grad_lses[i * p.grad_lses.split_stride] = dot;
    }

    if (!row.live) return;
    const float grad_lse = p.grad_lse.data == nullptr ? 0.0f : *row.template of<const float>(p.grad_lse);
#pragma unroll 1
    for (int i = row.lane; i < splits; i += kLanes) {
        const float w = weight(lses[i * p.lses.split_stride], reference);
        float& result = grad_lses[i * p.grad_lses.split_stride];
        result = w == 0.0f ? 0.0f : w * (result - mean + grad_lse);
    }
}

}  // namespace
}  // namespace vlmk::gpu

// Kernels are named merge_<direction>_<dtype>_<lanes>x<bytes>; plan.cpp makes the same names.
#define VLMK_MERGE_KERNEL(direction, dtype, T, lanes, bytes, wide)                                            \
    extern "C" __global__ void __launch_bounds__(vlmk::kMergeThreads)                                         \
        merge_##direction##_##dtype##_##lanes##x##bytes(const __grid_constant__ vlmk::MergeProblem problem) { \
        vlmk::gpu::merge_##direction<T, lanes, wide>(problem);                                                \
    }
#define VLMK_MERGE_KERNELS(direction, dtype, T)                                   \
    VLMK_MERGE_KERNEL(direction, dtype, T, 8, 16, vlmk::gpu::kVectorElements<T>)  \
    VLMK_MERGE_KERNEL(direction, dtype, T, 32, 16, vlmk::gpu::kVectorElements<T>) \
    VLMK_MERGE_KERNEL(direction, dtype, T, 32, 0, 1)

VLMK_MERGE_KERNELS(forward, float32, float)
VLMK_MERGE_KERNELS(forward, bfloat16, vlmk::bf16)
VLMK_MERGE_KERNELS(forward, float16, vlmk::f16)
VLMK_MERGE_KERNELS(backward, float32, float)
VLMK_MERGE_KERNELS(backward, bfloat16, vlmk::bf16)
VLMK_MERGE_KERNELS(backward, float16, vlmk::f16)
