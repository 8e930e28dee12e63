// What backward needs of every query row, before the main kernels: kStatisticsLanes lanes a row, 8 elements at once.
#pragma once
#include "attention/backward_launch.h"
#include "attention/backward_tiles.h"
#include "gpu/exp2.cuh"
#include "gpu/reduce.cuh"
#include "gpu/vector.cuh"

namespace vlmk::gpu {

template <class T>
VLMK_DEVICE void backward_statistics(const BackwardLaunch& launch) {
    const AttentionProblem& p = launch.problem;
    constexpr int kElements = kVectorElements<T>;
    const int heads = static_cast<int>(p.heads_q), length = static_cast<int>(p.seqlen_q);
    const int batch = p.cu_seqlens_q == nullptr ? static_cast<int>(p.batch) : 1, last = batch * heads * length - 1;
    const int number = static_cast<int>(blockIdx.x) * (kStatisticsThreads / kStatisticsLanes) +
                       static_cast<int>(threadIdx.x) / kStatisticsLanes;
    // Lanes past the last row shadow it, so that shuffles stay whole.
    const int at = min(number, last), row = at % length, head = at / length % heads, b = at / length / heads;
    const auto row_of = [&](const HeadTensor& t) {
        return static_cast<const T*>(t.data) + b * t.batch_stride + head * t.head_stride + row * t.row_stride;
    };
    const T *grad_out = row_of(p.grad_out), *out = row_of(p.out);

    const int lane = static_cast<int>(threadIdx.x) % kStatisticsLanes;
    float delta = 0.0f;
#pragma unroll 4
    for (int c = lane * kElements; c < static_cast<int>(p.head_dim); c += kStatisticsLanes * kElements) {
        float left[kElements], right[kElements];
        load(grad_out + c, left);
        load(out + c, right);
        for (int k = 0; k < kElements; ++k) delta += left[k] * right[k];
    }
    delta = reduce_add<kStatisticsLanes>(delta);
    if (lane != 0 || number > last) return;
    if (p.grad_lse != nullptr) delta -= p.grad_lse[at];
    const float lse = p.lse[at];
    const bool blind = lse == -infinity();
    launch.statistics[at] = {blind ? -infinity() : -lse * kLog2E, blind ? 0.0f : -delta};
}

}  // namespace vlmk::gpu
