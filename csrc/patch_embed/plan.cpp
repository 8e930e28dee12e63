#include "patch_embed/plan.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "patch_embed/launch.h"
#include "patch_embed/plan_tiling.h"
#include "patch_embed/tiles.h"

namespace vlmk {
namespace {

constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max() / 2;  // kernels count in 32 bits
constexpr int64_t kMaxRuns = 1 << 15;                                   // divide with less,
constexpr int64_t kMaxElements = 1 << 21;                               // and add 2^7 rows of the weight in bytes

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
int element_bytes(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

// What kernels cannot count.
void check_sizes(const PatchEmbedProblem& p) {
    const PatchSource& s = p.source;
    if (p.batch * p.tokens() > kMaxCount || p.embed > kMaxCount)
        throw NotImplemented("patch_embed takes at most 2^30 tokens on a GPU, got " +
                             std::to_string(p.batch * p.tokens()) + ": split the batch");
    if (s.elements() > kMaxElements)
        throw NotImplemented("patch_embed takes patches of at most 2^21 numbers on a GPU, got " +
                             std::to_string(s.elements()));
    if (s.channels * s.patch[0] * s.patch[1] > kMaxRuns)
        throw NotImplemented(
            "patch_embed takes patches of at most 2^15 rows in all channels and frames on a GPU, got " +
            std::to_string(s.channels * s.patch[0] * s.patch[1]));
    if ((p.mean != nullptr || p.deviation != nullptr) && s.channels > kPatchMaxNormChannels)
        throw NotImplemented("patch_embed takes mean and std of at most " + std::to_string(kPatchMaxNormChannels) +
                             " channels on a GPU, got " + std::to_string(s.channels) + ": normalise beforehand");
}

bool aligned(const void* pointer, int64_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// The widest access that all tiles of the weight can be copied by.
int weight_access(const PatchEmbedProblem& p, const PatchTiling& t) {
    const int element = element_bytes(p.dtype);
    const int64_t whole = t.splits_runs() ? t.run : t.positions;  // what tiles divide, with a rest
    int bytes = 16;
    while (bytes > element &&
           !(aligned(p.weight, bytes) && t.positions * element % bytes == 0 && t.tile * element % bytes == 0 &&
             whole % t.tile * element % bytes == 0 && (!t.splits_runs() || t.run * element % bytes == 0)))
        bytes /= 2;
    return bytes;
}

// Whether rows of the embedding can be accessed 16 bytes at a time.
bool wide_rows(const PatchEmbedProblem& p) {
    return p.embed % 8 == 0 && aligned(p.out, 16) && aligned(p.bias, 16) && aligned(p.position, 16) &&
           aligned(p.prefix, 16);
}

// What a block knows about rows, runs and channels.
int table_bytes(const PatchEmbedProblem& p) {
    const bool differ = p.mean != nullptr || p.deviation != nullptr;
    return kPatchTableBytes + static_cast<int>(differ ? p.source.channels : 1) * kPatchNormBytes;
}

// Bytes that go by lines wait behind the `tile_bytes` of tiles; tables are behind what is there, and behind the sums.
void place_tables(PatchLaunch& launch, int rows, int tile_bytes) {
    const PatchEmbedProblem& p = launch.problem;
    go_by_lines(launch.tiling, p, rows, kPatchMostBytes - tile_bytes - table_bytes(p));
    launch.table_offset =
        patch_larger(tile_bytes + launch.tiling.line_bytes(), patch_sum_bytes(element_bytes(p.dtype)));
}

gpu::LaunchPlan plan_kernel(const PatchLaunch& launch, const std::string& image, const std::string& kernel,
                            int64_t blocks, int threads, int shared_bytes) {
    const DType dtype = launch.problem.dtype;
    gpu::LaunchPlan plan;
    plan.image = "patch_embed/" + image + "_" + name(dtype);
    plan.kernel = "patch_embed_" + kernel;
    plan.grid = gpu::linear_grid(blocks);
    plan.block = {static_cast<uint32_t>(threads), 1, 1};
    plan.shared_bytes = static_cast<uint32_t>(shared_bytes);
    plan.parameters = gpu::parameter_bytes(launch);
    return plan;
}

// Blocks of few patches where there would be few blocks.
void choose_rows(PatchLaunch& launch, int64_t patches) {
    const bool full = ceil_divide(patches, kPatchRows) * launch.column_blocks >= kPatchFullBlocks;
    launch.block_rows = full ? kPatchRows : kPatchRows / 2;
    launch.row_blocks = static_cast<int>(ceil_divide(patches, launch.block_rows));
}

int threads_of(int rows) { return rows / kPatchWarpRows * kPatchWarpsAcross * 32; }

}  // namespace

std::vector<gpu::LaunchPlan> plan_patch_embed_forward(const PatchEmbedProblem& p) {
    check_sizes(p);
    const int element = element_bytes(p.dtype), columns = patch_columns(element);
    const int64_t patches = p.batch * p.source.patches(), prefixes = p.batch * p.prefix_tokens;
    if (patches + prefixes == 0) return {};
    PatchLaunch launch{p, make_patch_tiling(p, p.source.data)};
    launch.column_blocks = static_cast<int>(ceil_divide(p.embed, columns));
    choose_rows(launch, patches);
    launch.weight_bytes = weight_access(p, launch.tiling);
    launch.wide_out = wide_rows(p);
    place_tables(launch, launch.block_rows, patch_forward_bytes(element));
    return {plan_kernel(launch, "forward", std::string("forward_") + name(p.dtype) + "_" + name(p.source.dtype),
                        int64_t{launch.row_blocks} * launch.column_blocks + ceil_divide(prefixes, kPatchPrefixRows),
                        threads_of(launch.block_rows), launch.table_offset + table_bytes(p))};
}

namespace {

// How the patches are cut for the gradient of the weight, and the tokens for theirs.
struct BackwardCut {
    PatchTiling tiling;
    int row_blocks = 0, column_blocks = 0, parts = 1, part_patches = 0, strip = 0, strips = 0;
    int64_t weight_numbers = 0, bias_numbers = 0;  // of workspace

    explicit BackwardCut(const PatchEmbedProblem& p) : tiling(make_patch_tiling(p, p.source.data)) {
        row_blocks = static_cast<int>(ceil_divide(p.embed, kPatchGradientRows));
        column_blocks = tiling.tiles();
        const int64_t steps = ceil_divide(p.batch * p.source.patches(), kPatchDepth);
        const int64_t wanted = kPatchFullBlocks / (int64_t{row_blocks} * column_blocks);
        const int64_t most = std::max<int64_t>(1, std::min<int64_t>(wanted, steps / kPatchMinSteps));
        part_patches = static_cast<int>(ceil_divide(steps, most) * kPatchDepth);
        parts = static_cast<int>(std::max<int64_t>(1, ceil_divide(steps * kPatchDepth, std::max(part_patches, 1))));
        if (p.grad_weight != nullptr && parts > 1) weight_numbers = parts * p.embed * p.source.elements();

        strip = static_cast<int>(std::max<int64_t>(kTokenStrip, ceil_divide(p.tokens(), kTokenStrips)));
        strips = static_cast<int>(std::max<int64_t>(1, ceil_divide(p.tokens(), strip)));
        if (p.grad_bias != nullptr) bias_numbers = strips * p.embed;
    }
};

void plan_weight(std::vector<gpu::LaunchPlan>& plans, PatchLaunch launch) {
    const PatchEmbedProblem& p = launch.problem;
    place_tables(launch, kPatchDepth, patch_weight_gradient_bytes(element_bytes(p.dtype)));
    plans.push_back(plan_kernel(launch, "backward",
                                std::string("weight_gradient_") + name(p.dtype) + "_" + name(p.source.dtype),
                                int64_t{launch.row_blocks} * launch.column_blocks * launch.parts, kPatchThreads,
                                launch.table_offset + table_bytes(p)));
    if (launch.parts > 1)
        plans.push_back(plan_kernel(launch, "backward", std::string("weight_parts_") + name(p.dtype),
                                    ceil_divide(p.embed * p.source.elements(), kPartThreads), kPartThreads, 0));
}

void plan_pixels(std::vector<gpu::LaunchPlan>& plans, PatchLaunch launch) {
    const PatchEmbedProblem& p = launch.problem;
    const int64_t patches = p.batch * p.source.patches();
    if (patches == 0) return;
    launch.tiling = make_patch_tiling(p, p.grad_pixels);
    launch.weight_bytes = weight_access(p, launch.tiling);
    launch.column_blocks = launch.tiling.tiles();
    choose_rows(launch, patches);
    launch.table_offset = patch_pixel_gradient_bytes(element_bytes(p.dtype));
    plans.push_back(plan_kernel(launch, "backward", std::string("pixel_gradient_") + name(p.dtype),
                                int64_t{launch.row_blocks} * launch.column_blocks, threads_of(launch.block_rows),
                                launch.table_offset + table_bytes(p)));
}

void plan_tokens(std::vector<gpu::LaunchPlan>& plans, const PatchLaunch& launch) {
    const PatchEmbedProblem& p = launch.problem;
    const int64_t across = ceil_divide(p.embed, kTokenThreads);
    plans.push_back(plan_kernel(launch, "backward", std::string("token_gradients_") + name(p.dtype),
                                across * launch.strips, kTokenThreads, 0));
    if (p.grad_bias != nullptr)
        plans.push_back(
            plan_kernel(launch, "backward", std::string("bias_parts_") + name(p.dtype), across, kTokenThreads, 0));
}

}  // namespace

int64_t patch_embed_backward_workspace(const PatchEmbedProblem& p) {
    const BackwardCut cut(p);
    return cut.weight_numbers + cut.bias_numbers;
}

std::vector<gpu::LaunchPlan> plan_patch_embed_backward(const PatchEmbedProblem& p) {
    check_sizes(p);
    const BackwardCut cut(p);
    PatchLaunch launch{p, cut.tiling};
    launch.row_blocks = cut.row_blocks;
    launch.column_blocks = cut.column_blocks;
    launch.parts = cut.parts;
    launch.part_patches = cut.part_patches;
    launch.strip = cut.strip;
    launch.strips = cut.strips;
    launch.bias_parts = p.workspace == nullptr ? nullptr : p.workspace + cut.weight_numbers;
    launch.wide_grads = p.out_dtype == p.dtype && p.embed * element_bytes(p.dtype) % 16 == 0 && aligned(p.grad_out, 16);
    std::vector<gpu::LaunchPlan> plans;
    if (p.grad_weight != nullptr) plan_weight(plans, launch);
    if (p.grad_pixels != nullptr) plan_pixels(plans, launch);
    if (p.grad_bias != nullptr || p.grad_position != nullptr || p.grad_prefix != nullptr) plan_tokens(plans, launch);
    return plans;
}

}  // namespace vlmk
