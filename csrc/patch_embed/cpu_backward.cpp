// Patch embedding backward on the CPU:
//     dW = sum over patches of dOut x pixels,   dPixels = dOut W,
//     dPosition, dPrefix = sums over the batch,  dBias = sum over all patch tokens.
// Every sum has one owner and one order.
#include "core/dispatch.h"
#include "core/parallel.h"
#include "patch_embed/blocks.h"
#include "patch_embed/gather.h"
#include "simd/pack.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {
namespace {

// The gradient of one token in fp32.
void load_grad(const PatchEmbedProblem& p, int64_t batch, int64_t token, float* to) {
    const int64_t offset = (batch * p.tokens() + token) * p.embed;
    with_float_type(p.out_dtype, [&](auto number) {
        convert_row(to, static_cast<const decltype(number)*>(p.grad_out) + offset, p.embed);
    });
}

// Gradients of consecutive patches as rows of `stride` floats, zero behind the embedding.
void load_patch_grads(const PatchEmbedProblem& p, int64_t first, int64_t count, int64_t stride, float* to) {
    for (int64_t r = 0; r < count; ++r, to += stride) {
        load_grad(p, (first + r) / p.source.patches(), p.first_patch_token() + (first + r) % p.source.patches(), to);
        for (int64_t i = p.embed; i < stride; ++i) to[i] = 0.0f;
    }
}

// dW for runs [first_run, last_run) of the patch.
template <class T>
void weight_gradient(const PatchEmbedProblem& p, const Runs& runs, int64_t first_run, int64_t last_run) {
    using U = typename UnitOf<T>::type;
    const int64_t width = (last_run - first_run) * runs.length, embed = p.embed, total = p.batch * p.source.patches();
    const Panels panels(width);
    const int64_t stride = panels.padded_columns(), grad_stride = spread_stride(embed), block = gradient_patches(embed);
    Buffer<float> pixels(block * stride), grads(block * grad_stride), sum(embed * stride);
    Buffer<typename U::Unit> packed(packed_size<U>(block, width));
    UnitColumns<U> columns(block, grad_stride);
    fill_zero(sum.get(), embed * stride);
    const ProductScope scope;
    for (int64_t first = 0; first < total; first += block) {
        const int64_t count = first + block < total ? block : total - first;
        for (int64_t r = 0; r < count; ++r) {
            float* to = pixels.get() + r * stride;
            gather_any(p, runs, first + r, first_run, last_run, to);
            for (int64_t i = width; i < stride; ++i) to[i] = 0.0f;
        }
        load_patch_grads(p, first, count, grad_stride, grads.get());
        pack<U>(packed.get(), panels, pixels.get(), stride, count);
        const auto left = columns.from_floats(grads.get(), grad_stride, count, grad_stride);
        product<U>(true, embed, left, {panels, units<U>(count), packed.get()}, sum.get(), stride);
    }
    for (int64_t e = 0; e < embed; ++e)
        convert_row(static_cast<T*>(p.grad_weight) + e * p.source.elements() + first_run * runs.length,
                    sum.get() + e * stride, width);
}

template <class T>
void pixel_gradient(const PatchEmbedProblem& p, const Runs& runs, const PackedB<typename UnitOf<T>::type>& weight,
                    int64_t first, int64_t count) {
    using U = typename UnitOf<T>::type;
    const int64_t stride = Panels(p.embed).padded_columns(), out_stride = weight.panels.padded_columns();
    Buffer<float> grads(count * stride), out(count * out_stride);
    UnitRows<U> rows(count, stride);
    load_patch_grads(p, first, count, stride, grads.get());
    const auto left = rows.from_floats(grads.get(), stride, stride);
    const ProductScope scope;
    product<U>(false, count, left, weight, out.get(), out_stride);
    for (int64_t r = 0; r < count; ++r) scatter<T>(p, runs, first + r, out.get() + r * out_stride);
}

// Sums over the batch of every token's gradient, and from them everything that is added to tokens.
template <class T>
void token_gradients(const PatchEmbedProblem& p) {
    const int64_t embed = p.embed, tokens = p.tokens();
    Buffer<float> sums(tokens * embed);
    parallel_for(tokens, p.threads, [&](int64_t token) {
        Buffer<float> row(embed);
        float* sum = sums.get() + token * embed;
        fill_zero(sum, embed);
        for (int64_t b = 0; b < p.batch; ++b) {
            load_grad(p, b, token, row.get());
            for (int64_t i = 0; i < embed; ++i) sum[i] += row[i];
        }
    });
    for (int64_t token = 0; token < tokens; ++token) {
        const float* sum = sums.get() + token * embed;
        const int64_t row = p.position_row(token), prefix = token - p.first_prefix_token();
        if (p.grad_position != nullptr && row >= 0)
            convert_row(static_cast<T*>(p.grad_position) + row * embed, sum, embed);
        if (p.grad_prefix != nullptr && prefix >= 0 && prefix < p.prefix_tokens)
            convert_row(static_cast<T*>(p.grad_prefix) + prefix * embed, sum, embed);
    }
    if (p.grad_bias == nullptr) return;
    // As many addends as there are tokens: their sum would lose digits in fp32.
    Buffer<double> total(embed);
    fill_zero(total.get(), embed);
    for (int64_t token = p.first_patch_token(); token < p.first_patch_token() + p.source.patches(); ++token)
        for (int64_t i = 0; i < embed; ++i) total[i] += sums[token * embed + i];
    for (int64_t i = 0; i < embed; ++i) from_float(static_cast<float>(total[i]), static_cast<T*>(p.grad_bias)[i]);
}

template <class T>
void backward(const PatchEmbedProblem& p) {
    using U = typename UnitOf<T>::type;
    const Runs runs(p);
    const int64_t elements = p.source.elements(), total = p.batch * p.source.patches();
    if (p.grad_weight != nullptr && elements > 0) {
        const int64_t chunk = weight_chunk(elements, p.threads),
                      runs_per_chunk = (chunk + runs.length - 1) / runs.length;
        parallel_for((runs.count + runs_per_chunk - 1) / runs_per_chunk, p.threads, [&](int64_t task) {
            const int64_t first = task * runs_per_chunk;
            weight_gradient<T>(p, runs, first,
                               first + runs_per_chunk < runs.count ? first + runs_per_chunk : runs.count);
        });
    }
    if (p.grad_pixels != nullptr && total > 0) {
        const Panels panels(elements);
        Buffer<typename U::Unit> packed(packed_size<U>(p.embed, elements));
        pack<U>(packed.get(), panels, static_cast<const T*>(p.weight), elements, p.embed);
        const PackedB<U> weight{panels, units<U>(p.embed), packed.get()};
        const int64_t rows = patch_rows(total, p.threads);
        parallel_for((total + rows - 1) / rows, p.threads, [&](int64_t block) {
            pixel_gradient<T>(p, runs, weight, block * rows, std::min(rows, total - block * rows));
        });
    }
    if (p.grad_bias != nullptr || p.grad_position != nullptr || p.grad_prefix != nullptr) token_gradients<T>(p);
}

}  // namespace

void patch_embed_backward(const PatchEmbedProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { backward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
