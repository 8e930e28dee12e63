// Merging split attention on the CPU, forward and backward, a row at a time.
#include <algorithm>

#include "core/buffer.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "merge_attention/problem.h"
#include "simd/convert.h"
#include "simd/math.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {
namespace {

constexpr int64_t kRowsPerTask = 64;  // a few hundred KiB of partial outputs: long enough to be worth handing out

// One row: where it is in every tensor, and its weights.
class Row {
  public:
    Row(const MergeProblem& p, int64_t row, float* weights) : p_(p), weights_(weights) { p.find_row(row, index_); }

    template <class T>
    T* of(const SplitTensor& t, int64_t split = 0) const {
        return static_cast<T*>(t.data) + split * t.split_stride + t.offset(index_);
    }

    // weights = exp(lses - reference), padded with zeros; returns their sum.
    float weigh(float reference) {
        for (int64_t i = 0; i < padded(); ++i) weights_[i] = i < p_.splits ? *of<const float>(p_.lses, i) : -kInfinity;
        Vec sum{};
        for (int64_t i = 0; i < padded(); i += kLanes) {
            const Vec w = exp(load(weights_ + i) - splat(reference));
            store(weights_ + i, w);
            sum += w;
        }
        return reduce_add(sum);
    }

    // A NaN is the largest of all, so that it reaches the result.
    float largest_lse() const {
        float largest = -kInfinity;
        for (int64_t i = 0; i < p_.splits; ++i) {
            const float lse = *of<const float>(p_.lses, i);
            if (!(lse <= largest)) largest = lse;
            if (lse != lse) break;
        }
        return largest;
    }

    float weight(int64_t split) const { return weights_[split]; }
    int64_t padded() const { return padded(p_.splits); }
    static int64_t padded(int64_t splits) { return (splits + kLanes - 1) / kLanes * kLanes; }

  private:
    const MergeProblem& p_;
    int64_t index_[kMergeDims];
    float* weights_;
};

template <class T>
void merge_row(const MergeProblem& p, Row& row) {
    const float largest = row.largest_lse();
    T* out = row.template of<T>(p.out);
    if (largest == -kInfinity) {
        fill_zero(out, p.head_dim);
        *row.template of<float>(p.lse) = -kInfinity;
        return;
    }
    const float sum = row.weigh(largest);
    *row.template of<float>(p.lse) = largest + log(splat(sum))[0];
    const Vec normalise = splat(1.0f / sum);
    for (int64_t c = 0; c < p.head_dim; c += kLanes) {
        const int64_t count = p.head_dim - c;
        Vec merged{};
        for (int64_t i = 0; i < p.splits; ++i)
            if (row.weight(i) != 0.0f)
                merged += splat(row.weight(i)) * load_partial(row.template of<const T>(p.outputs, i) + c, count);
        store_partial(out + c, merged * normalise, count);
    }
}

// d out_i = w_i dout,  d lse_i = w_i (<dout, out_i> - sum_j w_j <dout, out_j> + dlse)
template <class T>
void merge_row_backward(const MergeProblem& p, Row& row, float* dots) {
    const float lse = *row.template of<const float>(p.lse);
    // Without any weight everything below is zero; the reference 0 keeps -inf - -inf out of it.
    row.weigh(lse == -kInfinity ? 0.0f : lse);
    const T* grad_out = row.template of<const T>(p.grad_out);
    float mean = 0.0f;
    for (int64_t i = 0; i < p.splits; ++i) {
        T* grad = row.template of<T>(p.grad_outputs, i);
        const float weight = row.weight(i);
        if (weight == 0.0f) {
            fill_zero(grad, p.head_dim);
            continue;
        }
        dots[i] = dot(grad_out, row.template of<const T>(p.outputs, i), p.head_dim);
        mean += weight * dots[i];
        convert_row(grad, grad_out, p.head_dim, weight);
    }
    const float grad_lse = p.grad_lse.data == nullptr ? 0.0f : *row.template of<const float>(p.grad_lse);
    for (int64_t i = 0; i < p.splits; ++i) {
        const float weight = row.weight(i);
        *row.template of<float>(p.grad_lses, i) = weight == 0.0f ? 0.0f : weight * (dots[i] - mean + grad_lse);
    }
}

template <class T>
void forward(const MergeProblem& p) {
    const int64_t rows = p.row_count(), tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
    parallel_for(tasks, p.threads, [&](int64_t task) {
        Buffer<float> weights(Row::padded(p.splits));
        for (int64_t r = task * kRowsPerTask, end = std::min(rows, r + kRowsPerTask); r < end; ++r) {
            Row row(p, r, weights.get());
            merge_row<T>(p, row);
        }
    });
}

template <class T>
void backward(const MergeProblem& p) {
    const int64_t rows = p.row_count(), tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
    parallel_for(tasks, p.threads, [&](int64_t task) {
        Buffer<float> weights(Row::padded(p.splits)), dots(p.splits);
        for (int64_t r = task * kRowsPerTask, end = std::min(rows, r + kRowsPerTask); r < end; ++r) {
            Row row(p, r, weights.get());
            merge_row_backward<T>(p, row, dots.get());
        }
    });
}

}  // namespace

void merge_attention_forward(const MergeProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { forward<decltype(number)>(problem); });
}

void merge_attention_backward(const MergeProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { backward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
