// Attention over parts of the keys, put together: a warp a row,
//     lse = log sum_i exp(lse_i),  out = sum_i exp(lse_i - lse) out_i       over parts i.
#include "attention/forward_launch.h"
#include "attention/forward_tiles.h"
#include "attention/rows.cuh"
#include "gpu/exp2.cuh"
#include "gpu/reduce.cuh"
#include "gpu/vector.cuh"

namespace vlmk::gpu {
namespace {

constexpr int kWide = 4;

template <class T>
VLMK_DEVICE void store_four(T* to, const float4& v) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack<T>(v.x, v.y), pack<T>(v.z, v.w));
}
template <>
VLMK_DEVICE void store_four<float>(float* to, const float4& v) {
    *reinterpret_cast<float4*>(to) = v;
}

template <class T>
VLMK_DEVICE void combine(const ForwardLaunch& launch) {
    const AttentionProblem& p = launch.problem;
    const int64_t rows = partial_rows(p), row = (blockIdx.x * int64_t{kCombineThreads} + threadIdx.x) / kWarpLanes;
    if (row >= rows) return;
    const int lane = lane_index(), head_dim = static_cast<int>(p.head_dim);
    const float* const lses = p.workspace + launch.splits * rows * head_dim;

    const float part = lane < launch.splits ? lses[lane * rows + row] : -infinity();
    const float largest = reduce_max(part);
    // Where no part saw anything, all weights are 0 and not NaN.
    const float reference = largest == -infinity() ? 0.0f : largest;
    float weight = exp2((part - reference) * kLog2E);
    const float sum = reduce_add(weight);
    weight *= sum == 0.0f ? 0.0f : 1.0f / sum;

    // Rows are numbered by batch, head and position.
    const int64_t head = row / p.seqlen_q;
    T* const out = static_cast<T*>(p.out.data) + head / p.heads_q * p.out.batch_stride +
                   head % p.heads_q * p.out.head_stride + row % p.seqlen_q * p.out.row_stride;
    if (p.lse != nullptr && lane == 0) p.lse[row] = reference + logf(sum);
    for (int c = 0; c < head_dim; c += kWarpLanes * kWide) {
        const int column = c + lane * kWide;
        float4 total{};
        for (int i = 0; i < launch.splits; ++i) {
            const float w = __shfl_sync(kWholeWarp, weight, i);
            if (column >= head_dim || w == 0.0f) continue;
            const float4 o = *reinterpret_cast<const float4*>(p.workspace + (i * rows + row) * head_dim + column);
            total.x += w * o.x, total.y += w * o.y, total.z += w * o.z, total.w += w * o.w;
        }
        if (column < head_dim) store_four(out + column, total);
    }
}

}  // namespace
}  // namespace vlmk::gpu

#define VLMK_COMBINE_KERNEL(dtype, T)                                                   \
    extern "C" __global__ void __launch_bounds__(vlmk::kCombineThreads)                 \
        attention_combine_##dtype(const __grid_constant__ vlmk::ForwardLaunch launch) { \
        vlmk::gpu::combine<T>(launch);                                                  \
    }
VLMK_COMBINE_KERNEL(bfloat16, vlmk::bf16)
VLMK_COMBINE_KERNEL(float16, vlmk::f16)
VLMK_COMBINE_KERNEL(float32, float)
