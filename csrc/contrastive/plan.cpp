#include "contrastive/plan.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "contrastive/gpu_tiles.h"
#include "contrastive/launch.h"
#include "contrastive/planes.h"
#include "core/error.h"

namespace vlmk {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_divide(a, b) * b; }

int element_bytes(const ContrastiveProblem& p) { return p.dtype == DType::f32 ? 4 : 2; }

// Bytes of which the start of every row is a multiple.
int access_of(const Features& f, int element) {
    for (const int bytes : {16, 4})
        if (reinterpret_cast<uintptr_t>(f.data) % bytes == 0 && (f.count <= 1 || f.row_stride * element % bytes == 0))
            return bytes;
    return 2;
}

void check_sizes(const ContrastiveProblem& p) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max() - 1024;  // ends of tiles are beyond those of matrices
    for (const auto& [name, f] : {std::pair<const char*, const Features&>{"image", p.image}, {"text", p.text}})
        if (f.count > kMost || p.dim > kMost / 4 || f.row_stride > kMost / 4)
            throw NotImplemented(std::string(name) + " has more rows or wider ones than CUDA kernels count: at most " +
                                 std::to_string(kMost) + " rows and 2^29 elements from one to the next");
}

// Hands out parts of the workspace; of none, it only counts.
class Workspace {
  public:
    explicit Workspace(float* base) : base_(base) {}
    float* take(int64_t numbers) {
        float* part = base_ == nullptr ? nullptr : base_ + used_;
        used_ += round_up(numbers, 64);
        return part;
    }
    int64_t used() const { return used_; }

  private:
    float* base_;
    int64_t used_ = 0;
};

// The matrix of logits in chunks, and what launches of all of them share.
class Chunks {
  public:
    Chunks(const ContrastiveProblem& p, int row_planes, int column_planes)
        : p_(p), workspace_(p.workspace), element_(element_bytes(p)) {
        check_sizes(p);
        const int64_t tile = tile_side(element_), strip = strip_side(element_);
        side_ = round_up(p.chunk_side > 0 ? p.chunk_side : kChunkSide, tile);
        rows_ = std::min(side_, round_up(p.image.count, tile));
        columns_ = std::min(side_, round_up(p.text.count, tile));
        base_.image_access = access_of(p.image, element_);
        base_.text_access = access_of(p.text, element_);
        base_.row_partials = partials(row_planes, columns_ / strip, rows_);
        if (column_planes > 0) base_.column_partials = partials(column_planes, rows_ / strip, columns_);
        if (!p.wants_gradients()) return;
        base_.gradient_stride = static_cast<int>(columns_);
        base_.gradient = workspace_.take(rows_ * columns_ * element_ / 4);
        if (p.labels == Labels::diagonal) base_.diagonal = workspace_.take(p.image.count);
        base_.image_sum = sums(p.image, rows_);
        base_.text_sum = sums(p.text, p.text.count);
        // Small weights would vanish in fp16.
        scales_ = p.dtype == DType::f16;
        if (scales_) base_.range = range_ = reinterpret_cast<Range*>(workspace_.take(sizeof(Range) / sizeof(float)));
    }

    int64_t workspace() const { return workspace_.used(); }
    bool scales() const { return scales_; }
    Range* range() const { return range_; }
    bool empty() const { return p_.image.count == 0 || p_.text.count == 0; }

    // The chunks of rows, from the first column to the last. Where there are no rows or no columns, one of the others.
    template <class Visit>
    void for_each(const Visit& visit) const {
        const int64_t m = p_.image.count, n = p_.text.count;
        for (int64_t row = 0; row == 0 || row < m; row += side_)
            for (int64_t column = 0; column == 0 || column < n; column += side_) {
                Chunk chunk = base_;
                chunk.first_row = static_cast<int>(row);
                chunk.rows = static_cast<int>(std::min(side_, m - row));
                chunk.first_column = static_cast<int>(column);
                chunk.columns = static_cast<int>(std::min(side_, n - column));
                chunk.first_rows = row == 0;
                chunk.last_rows = row + side_ >= m;
                chunk.first_columns = column == 0;
                chunk.last_columns = column + side_ >= n;
                chunk.row_partials.strips = strips(chunk.columns);
                chunk.column_partials.strips = strips(chunk.rows);
                // What lies in the gradients goes on with them; what lies in the workspace is for these rows now.
                FeatureSums& sum = chunk.image_sum;
                if (sum.halved())
                    sum.upper += row * p_.dim;
                else if (sums_in_place())
                    sum.whole += row * p_.dim;
                visit(chunk);
            }
    }

    int64_t tiles(const Chunk& c) const {
        const int64_t side = tile_side(element_);
        return ceil_divide(c.rows, side) * ceil_divide(c.columns, side);
    }

  private:
    bool gradients_aligned() const {
        const auto aligned = [](const Features& f) { return reinterpret_cast<uintptr_t>(f.grad) % 8 == 0; };
        return aligned(p_.image) && aligned(p_.text);
    }
    // fp32 gradients are their own sums, where pairs of numbers are aligned; 16-bit ones half of them, where fours are.
    bool sums_in_place() const { return element_ == 4 && p_.dim % 2 == 0 && gradients_aligned(); }
    bool sums_halved() const { return element_ == 2 && p_.dim % 4 == 0 && gradients_aligned(); }

    FeatureSums sums(const Features& f, int64_t rows) {
        FeatureSums sum;
        sum.stride = static_cast<int>(sums_in_place() || sums_halved() ? p_.dim : round_up(p_.dim, 8));
        if (sums_in_place()) {
            sum.whole = static_cast<float*>(f.grad);
        } else if (sums_halved()) {
            sum.upper = static_cast<uint16_t*>(f.grad);
            sum.lower = reinterpret_cast<uint16_t*>(workspace_.take(rows * sum.stride / 2));
        } else {
            sum.whole = workspace_.take(rows * sum.stride);
        }
        return sum;
    }

    // Of whole tiles.
    int strips(int lines) const {
        return static_cast<int>(round_up(lines, tile_side(element_)) / strip_side(element_));
    }

    Partials partials(int planes, int64_t strips, int64_t count) {
        return {workspace_.take(planes * strips * count), static_cast<int>(strips), static_cast<int>(count)};
    }

    const ContrastiveProblem& p_;
    Workspace workspace_;
    int element_;
    int64_t side_, rows_, columns_;
    Chunk base_;
    bool scales_ = false;
    Range* range_ = nullptr;
};

template <class Launch>
gpu::LaunchPlan plan(const ContrastiveProblem& p, const std::string& kernel, bool of_dtype, int64_t blocks, int threads,
                     const Launch& launch, int shared_bytes = 0) {
    gpu::LaunchPlan made;
    made.image = of_dtype ? std::string("contrastive/loss_") + name(p.dtype) : "contrastive/merge";
    made.kernel = "contrastive_" + kernel + (of_dtype ? std::string("_") + name(p.dtype) : "");
    made.grid = gpu::linear_grid(blocks);
    made.block = {static_cast<uint32_t>(threads), 1, 1};
    made.shared_bytes = static_cast<uint32_t>(shared_bytes);
    made.parameters = gpu::parameter_bytes(launch);
    return made;
}

using Plans = std::vector<gpu::LaunchPlan>;

template <class Problem>
void add_tiles(Plans& plans, const std::string& kernel, const Chunks& chunks, const ChunkLaunch<Problem>& launch) {
    if (const int64_t tiles = chunks.tiles(launch.chunk))
        plans.push_back(plan(launch.problem, kernel, true, tiles, kLossThreads, launch,
                             logits_shared_bytes(element_bytes(launch.problem))));
}

void add_merge_rows(Plans& plans, const SigmoidProblem& p, const Chunk& chunk) {
    if (chunk.rows > 0)
        plans.push_back(plan(p, "merge_rows", false, ceil_divide(chunk.rows, kMergeLines), kMergeLossThreads,
                             SigmoidLaunch{p, chunk}));
}

void add_finish(Plans& plans, const ContrastiveProblem& p, const Chunk& chunk, Side side, bool empty) {
    FinishLaunch launch;
    launch.problem = p;
    launch.side = side;
    if (!empty) launch.sum = side == Side::image ? chunk.image_sum : chunk.text_sum;
    launch.first = side == Side::image ? chunk.first_row : 0;
    launch.rows = side == Side::image ? chunk.rows : static_cast<int>(p.text.count);
    launch.diagonal = empty ? nullptr : chunk.diagonal;
    launch.range = chunk.range;
    if (launch.rows > 0)
        plans.push_back(plan(p, "finish", true, ceil_divide(launch.rows, kFinishThreads / 32), kFinishThreads, launch));
}

// What follows the tiles of a chunk: products with the features, and finished gradients where it was the last one.
void add_gradients(Plans& plans, const ContrastiveProblem& p, const Chunks& chunks, const Chunk& chunk) {
    const int64_t side = tile_side(element_bytes(p));
    const int64_t blocks =
        (ceil_divide(chunk.rows, side) + ceil_divide(chunk.columns, side)) * ceil_divide(p.dim, side);
    if (!chunks.empty())
        plans.push_back(plan(p, "products", true, blocks, kLossThreads, ProductsLaunch{p, chunk},
                             products_shared_bytes(element_bytes(p))));
    if (chunk.last_columns) add_finish(plans, p, chunk, Side::image, chunks.empty());
    if (chunk.last_columns && chunk.last_rows) add_finish(plans, p, chunk, Side::text, chunks.empty());
}

void add_range(Plans& plans, const ContrastiveProblem& p, const Chunks& chunks, RangeLaunch launch) {
    if (!chunks.scales() || chunks.empty()) return;
    launch.factors[0] = p.image.factor, launch.factor_counts[0] = p.image.count;
    launch.factors[1] = p.text.factor, launch.factor_counts[1] = p.text.count;
    launch.range = chunks.range();
    plans.push_back(plan(p, "range", false, 1, kRangeThreads, launch));
}

Chunks forward_chunks(const InfoNceProblem& p) { return {p, kStatisticsPlanes, kStatisticsPlanes}; }
Chunks backward_chunks(const InfoNceProblem& p) { return {p, 1, 0}; }
Chunks sigmoid_chunks(const SigmoidProblem& p) { return {p, kRowPlanes, 0}; }

}  // namespace

int64_t info_nce_forward_workspace(const InfoNceProblem& p) { return forward_chunks(p).workspace(); }
int64_t info_nce_backward_workspace(const InfoNceProblem& p) { return backward_chunks(p).workspace(); }
int64_t sigmoid_workspace(const SigmoidProblem& p) { return sigmoid_chunks(p).workspace(); }

Plans plan_info_nce_forward(const InfoNceProblem& p) {
    const Chunks chunks = forward_chunks(p);
    Plans plans;
    chunks.for_each([&](const Chunk& chunk) {
        const InfoNceLaunch launch{p, chunk};
        add_tiles(plans, "statistics", chunks, launch);
        const int64_t blocks = ceil_divide(chunk.rows, kMergeLines) + ceil_divide(chunk.columns, kMergeLines);
        if (blocks > 0) plans.push_back(plan(p, "merge_statistics", false, blocks, kMergeLossThreads, launch));
    });
    return plans;
}

Plans plan_info_nce_backward(const InfoNceProblem& p) {
    const Chunks chunks = backward_chunks(p);
    Plans plans;
    RangeLaunch range;
    int i = 0;
    for (const auto& [gradients, count] : {std::pair{p.grad_rows, p.image.count}, {p.grad_columns, p.text.count}})
        for (const float* weights : {gradients.logsumexp, gradients.target, gradients.mean}) {
            range.weights[i] = weights;
            range.weight_counts[i++] = count;
        }
    add_range(plans, p, chunks, range);
    SigmoidProblem rows;  // of which nothing but scale_dot is wanted
    static_cast<ContrastiveProblem&>(rows) = p;
    chunks.for_each([&](const Chunk& chunk) {
        add_tiles(plans, "info_nce", chunks, InfoNceLaunch{p, chunk});
        add_merge_rows(plans, rows, chunk);
        add_gradients(plans, p, chunks, chunk);
    });
    return plans;
}

Plans plan_sigmoid(const SigmoidProblem& p) {
    const Chunks chunks = sigmoid_chunks(p);
    Plans plans;
    RangeLaunch range;
    range.weights[0] = p.row_weight;
    range.weight_counts[0] = p.image.count;
    add_range(plans, p, chunks, range);
    chunks.for_each([&](const Chunk& chunk) {
        add_tiles(plans, "sigmoid", chunks, SigmoidLaunch{p, chunk});
        add_merge_rows(plans, p, chunk);
        if (p.wants_gradients()) add_gradients(plans, p, chunks, chunk);
    });
    return plans;
}

}  // namespace vlmk
