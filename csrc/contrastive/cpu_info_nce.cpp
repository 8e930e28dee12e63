// InfoNCE on the CPU. Forward: logsumexp of every row and column, and what the loss needs of the positives. Backward,
// with the gradients of those statistics:
//     G_ij = dlse_i P_ij + dlse'_j Q_ij + [positive] (dtarget_i / k_i + dtarget'_j / k'_j) + dmean_i / N + dmean'_j /
//     M, P_ij = exp(z_ij - lse_i),  Q_ij = exp(z_ij - lse'_j).
#include "contrastive/tiles.h"
#include "core/dispatch.h"

namespace vlmk::VLMK_ISA {
namespace {

// Running logsumexp and sums of the rows (or columns) of the whole problem.
// Exponents are differences first, then times log2 e: a logit that is the maximum gives exactly 1.
struct Running {
    Buffer<float> max, sum, target, total, positives;

    // There is room for whole vectors.
    explicit Running(int64_t count)
        : max(whole_vectors(count)),
          sum(whole_vectors(count)),
          target(whole_vectors(count)),
          total(whole_vectors(count)),
          positives(whole_vectors(count)) {
        for (int64_t i = 0; i < whole_vectors(count); ++i) {
            max[i] = -kInfinity;
            sum[i] = target[i] = total[i] = positives[i] = 0.0f;
        }
    }

    // Adds parts with their own maxima to a vector of rows (columns), and to one.
    void merge(int64_t i, Vec part_max, Vec part_sum) {
        const Merged merged = merge(load(max.get() + i), load(sum.get() + i), part_max, part_sum);
        store(max.get() + i, merged.max);
        store(sum.get() + i, merged.sum);
    }
    void merge(int64_t i, float part_max, float part_sum) {
        const Merged merged = merge(splat(max[i]), splat(sum[i]), splat(part_max), splat(part_sum));
        max[i] = merged.max[0];
        sum[i] = merged.sum[0];
    }

    void write(const Statistics& to, int64_t count, int64_t others) const {
        for (int64_t i = 0; i < count; ++i) {
            to.logsumexp[i] = sum[i] == 0.0f ? -kInfinity : max[i] + log(splat(sum[i]))[0];
            to.target[i] = positives[i] > 0.0f ? target[i] / positives[i] : 0.0f;
            to.mean[i] = others > 0 ? total[i] / static_cast<float>(others) : 0.0f;
            to.positives[i] = positives[i];
        }
    }

  private:
    struct Merged {
        Vec max, sum;
    };
    static Merged merge(Vec max, Vec sum, Vec part_max, Vec part_sum) {
        const Vec larger = VLMK_ISA::max(max, part_max);
        // Where nothing was seen, 0 in place of -inf leaves the sum 0.
        const Vec reference = select((IntVec)(larger == splat(-kInfinity)), Vec{}, larger);
        return {larger, sum * exp(max - reference) + part_sum * exp(part_max - reference)};
    }
};

void row_statistics(const Strip& s, Running& rows) {
    const Vec log2e = splat(kLog2E);
    for (int64_t r = 0; r < s.rows; ++r) {
        const float* z = s.row(r);
        Vec largest = splat(-kInfinity);
        for (int64_t j = 0; j < s.padded(); j += kLanes) largest = max(largest, load(z + j));
        const float peak = reduce_max(largest);
        const float reference = peak == -kInfinity ? 0.0f : peak;
        Vec sum{}, total{};
        for (int64_t j = 0; j < s.padded(); j += kLanes) {
            const Vec v = load(z + j);
            sum += exp2_nonpositive((v - splat(reference)) * log2e);
            if (j + kLanes <= s.columns) total += v;
        }
        float tail = 0.0f;
        for (int64_t j = s.columns / kLanes * kLanes; j < s.columns; ++j) tail += z[j];
        rows.merge(s.first_row + r, peak, reduce_add(sum));
        rows.total[s.first_row + r] += reduce_add(total) + tail;
    }
}

// Maximum, sum of exponentials and plain sum over the strip's rows for each of its columns: row `index` of the parts.
void column_statistics(const Strip& s, float* peak, float* sum, float* total) {
    const Vec log2e = splat(kLog2E);
    for (int64_t j = 0; j < s.padded(); j += kLanes) {
        Vec largest = splat(-kInfinity), all{}, exponentials{};
        for (int64_t r = 0; r < s.rows; ++r) largest = max(largest, load(s.row(r) + j));
        const Vec reference = select((IntVec)(largest == splat(-kInfinity)), splat(0.0f), largest);
        for (int64_t r = 0; r < s.rows; ++r) {
            const Vec v = load(s.row(r) + j);
            exponentials += exp2_nonpositive((v - reference) * log2e);
            all += v;
        }
        store(peak + j, largest);
        store(sum + j, exponentials);
        store(total + j, all);
    }
}

template <class T>
void forward(const InfoNceProblem& p) {
    Running rows(p.image.count), columns(p.text.count);
    const int64_t strips = tile_rows() / kStrip;
    const int64_t part = (p.text.count < kTileColumns ? p.text.count : kTileColumns) / kLanes * kLanes + kLanes;
    Buffer<float> peaks(strips * part), sums(strips * part), totals(strips * part), targets(strips * part),
        counts(strips * part);

    walk<T>(
        p, false,
        [&](const Strip& s) {
            const int64_t at = s.index * part;
            row_statistics(s, rows);
            column_statistics(s, peaks.get() + at, sums.get() + at, totals.get() + at);
            fill_zero(targets.get() + at, s.columns);
            fill_zero(counts.get() + at, s.columns);
            for_each_positive(p, s, [&](int64_t r, int64_t j) {
                const float z = s.row(r)[j];
                rows.target[s.first_row + r] += z;
                rows.positives[s.first_row + r] += 1.0f;
                targets[at + j] += z;
                counts[at + j] += 1.0f;
            });
        },
        [&](int64_t first, int64_t count, int64_t filled) {
            for (int64_t s = 0; s < filled; ++s) {
                const int64_t at = s * part;
                for (int64_t j = 0; j < count; j += kLanes)
                    columns.merge(first + j, load(peaks.get() + at + j), load(sums.get() + at + j));
                for (int64_t j = 0; j < count; ++j) {
                    columns.total[first + j] += totals[at + j];
                    columns.target[first + j] += targets[at + j];
                    columns.positives[first + j] += counts[at + j];
                }
            }
        });
    rows.write(p.rows, p.image.count, p.text.count);
    columns.write(p.columns, p.text.count, p.image.count);
}

// What to subtract from a logit before the exponential: +inf, so that it is 0, where nothing was summed.
inline float subtrahend(float logsumexp) { return logsumexp == -kInfinity ? kInfinity : logsumexp; }

template <class T>
void backward(const InfoNceProblem& p) {
    const int64_t m = p.image.count, n = p.text.count, padded = blocks_of(n, kLanes) * kLanes;
    const float over_n = n > 0 ? 1.0f / static_cast<float>(n) : 0.0f,
                over_m = m > 0 ? 1.0f / static_cast<float>(m) : 0.0f;
    // What a column adds to every row, as vectors.
    Buffer<float> shift(padded), weight(padded), constant(padded);
    for (int64_t j = 0; j < padded; ++j) {
        shift[j] = j < n ? subtrahend(p.columns.logsumexp[j]) : kInfinity;
        weight[j] = j < n ? p.grad_columns.logsumexp[j] : 0.0f;
        constant[j] = j < n ? p.grad_columns.mean[j] * over_m : 0.0f;
    }
    const Vec log2e = splat(kLog2E);
    const auto target = [&](int64_t row, int64_t column) {
        return p.grad_rows.target[row] / p.rows.positives[row] +
               p.grad_columns.target[column] / p.columns.positives[column];
    };
    walk<T>(
        p, true,
        [&](const Strip& s) {
            for_each_positive(p, s, [&](int64_t r, int64_t j) {
                p.scale_dot[s.first_row + r] += target(s.first_row + r, s.first_column + j) * s.row(r)[j];
            });
            // Tiles begin at multiples of the vector length, so the columns' vectors are aligned with the strip's.
            for (int64_t r = 0; r < s.rows; ++r) {
                const int64_t i = s.first_row + r;
                const Vec row_shift = splat(subtrahend(p.rows.logsumexp[i])),
                          row_weight = splat(p.grad_rows.logsumexp[i]);
                const Vec row_constant = splat(p.grad_rows.mean[i] * over_n);
                float* z = s.row(r);
                Vec dot{};
                float tail = 0.0f;
                for (int64_t j = 0; j < s.padded(); j += kLanes) {
                    const int64_t column = s.first_column + j;
                    const Vec v = load(z + j);
                    const Vec forward = exp2_nonpositive((v - row_shift) * log2e) * row_weight;
                    const Vec backward =
                        exp2_nonpositive((v - load(shift.get() + column)) * log2e) * load(weight.get() + column);
                    const Vec g = forward + backward + row_constant + load(constant.get() + column);
                    store(z + j, g);
                    if (j + kLanes <= s.columns)
                        dot += g * v;
                    else
                        for (int64_t l = 0; j + l < s.columns; ++l) tail += g[l] * v[l];
                }
                p.scale_dot[i] += reduce_add(dot) + tail;
            }
            for_each_positive(
                p, s, [&](int64_t r, int64_t j) { s.row(r)[j] += target(s.first_row + r, s.first_column + j); });
            for (int64_t r = 0; r < s.rows; ++r) apply_factors(p, s, r);
            clear_padding(s);
        },
        [](int64_t, int64_t, int64_t) {});
}

}  // namespace

void info_nce_forward(const InfoNceProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { forward<decltype(number)>(problem); });
}

void info_nce_backward(const InfoNceProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { backward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
