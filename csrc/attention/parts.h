// Results of parts of the keys that are merged in the end: out = sum of 2^(reference - all) * out over the parts.
#pragma once
#include "attention/softmax.h"
#include "core/buffer.h"

namespace vlmk::VLMK_ISA {

// What parts of the keys leave behind of one head's rows.
class Parts {
  public:
    Parts(int64_t count, int64_t rows, int64_t out_stride)
        : rows_(rows),
          stride_(out_stride),
          out_(count * rows * out_stride),
          reference_(count * rows),
          sum_(count * rows) {}

    // Room for the output rows of a part, `out_stride` apart.
    float* out(int64_t part) const { return out_.get() + part * rows_ * stride_; }
    void set_state(int64_t part, int64_t row, float reference, float sum) {
        reference_[part * rows_ + row] = reference, sum_[part * rows_ + row] = sum;
    }

    // Parts [first, last) of a row as one, in their order: the output is left in the first.
    struct Merged {
        const float* out;
        float sum, lse;
    };
    Merged merge(int64_t first, int64_t last, int64_t row) {
        SoftmaxState all;
        for (int64_t i = first; i < last; ++i) all.reference = max(splat(reference_[i * rows_ + row]), all.reference);
        float* to = out(first) + row * stride_;
        for (int64_t i = first; i < last; ++i) {
            const float sum = sum_[i * rows_ + row];
            const Vec factor = sum == 0.0f ? Vec{} : exp2(splat(reference_[i * rows_ + row]) - all.reference);
            all.sum += splat(sum) * factor;
            const float* part = out(i) + row * stride_;
            for (int64_t c = 0; c < stride_; c += kLanes) {
                const Vec before = i == first ? Vec{} : load(to + c);
                // A part that saw nothing left nothing.
                store(to + c, sum == 0.0f ? before : before + load(part + c) * factor);
            }
        }
        return {to, all.sum[0], logsumexp(all)[0]};
    }

  private:
    int64_t rows_, stride_;
    Buffer<float> out_, reference_, sum_;
};

}  // namespace vlmk::VLMK_ISA
