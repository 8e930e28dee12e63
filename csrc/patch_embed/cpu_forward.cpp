// Patch embedding forward on the CPU: blocks of patches are gathered, normalised and multiplied with the packed weight;
// bias, position and prefix tokens are added on the way out.
#include "core/dispatch.h"
#include "core/parallel.h"
#include "patch_embed/blocks.h"
#include "patch_embed/gather.h"
#include "simd/pack.h"
#include "simd/rows.h"

namespace vlmk::VLMK_ISA {
namespace {

// to = row + bias + addend (null: nothing), in the output's dtype.
template <class T>
void write_token(const PatchEmbedProblem& p, const float* row, const float* bias, const T* addend, int64_t token) {
    const int64_t width = p.embed;
    auto write = [&](auto* to) {
        for (int64_t i = 0; i < width; i += kLanes) {
            const int64_t count = width - i;
            const Vec sum = load_partial(row + i, count) + load_partial(bias + i, count);
            store_partial(to + i, addend == nullptr ? sum : sum + load_partial(addend + i, count), count);
        }
    };
    with_float_type(p.out_dtype, [&](auto number) { write(static_cast<decltype(number)*>(p.out) + token * width); });
}

template <class T>
const T* position_of(const PatchEmbedProblem& p, int64_t token) {
    const int64_t row = p.position_row(token);
    return p.position == nullptr || row < 0 ? nullptr : static_cast<const T*>(p.position) + row * p.embed;
}

template <class T>
void embed_block(const PatchEmbedProblem& p, const Runs& runs, const PackedB<typename UnitOf<T>::type>& weight,
                 const float* bias, int64_t first, int64_t count) {
    using U = typename UnitOf<T>::type;
    const int64_t elements = p.source.elements(), stride = Panels(elements).padded_columns(),
                  out_stride = spread_stride(p.embed);
    // Where units are floats the pixels are the left-hand side themselves; else a row is enough.
    const int64_t pixel_row = U::kDepth == 1 ? stride : 0;
    Buffer<float> pixels(pixel_row > 0 ? count * stride : stride), out(count * out_stride);
    UnitRows<U> rows(count, stride);
    for (int64_t r = 0; r < count; ++r) {
        float* to = pixels.get() + r * pixel_row;
        gather_any(p, runs, first + r, 0, runs.count, to);
        for (int64_t i = elements; i < stride; ++i) to[i] = 0.0f;
        rows.set_floats(r, to, stride);
    }
    const auto left = rows.left_of(pixels.get(), stride);
    const ProductScope scope;
    product<U>(false, count, left, weight, out.get(), out_stride);
    for (int64_t r = 0; r < count; ++r) {
        const int64_t batch = (first + r) / p.source.patches(),
                      token = p.first_patch_token() + (first + r) % p.source.patches();
        write_token(p, out.get() + r * out_stride, bias, position_of<T>(p, token), batch * p.tokens() + token);
    }
}

template <class T>
void forward(const PatchEmbedProblem& p) {
    using U = typename UnitOf<T>::type;
    const Runs runs(p);
    const Panels panels(p.embed);
    const int64_t elements = p.source.elements(), total = p.batch * p.source.patches();
    Buffer<float> bias(panels.padded_columns());
    fill_zero(bias.get(), panels.padded_columns());
    if (p.bias != nullptr) convert_row(bias.get(), static_cast<const T*>(p.bias), p.embed);

    if (total > 0) {
        Buffer<typename U::Unit> packed(packed_size<U>(elements, p.embed));
        parallel_for(panels.count, p.threads, [&](int64_t panel) {
            pack_transposed_panel<U>(packed.get(), panels, panel, static_cast<const T*>(p.weight), elements, elements);
        });
        const PackedB<U> weight{panels, units<U>(elements), packed.get()};
        const int64_t rows = patch_rows(total, p.threads);
        parallel_for((total + rows - 1) / rows, p.threads, [&](int64_t block) {
            embed_block<T>(p, runs, weight, bias.get(), block * rows, std::min(rows, total - block * rows));
        });
    }
    Buffer<float> row(p.embed), no_bias(p.embed);
    fill_zero(no_bias.get(), p.embed);
    for (int64_t i = 0; i < p.prefix_tokens; ++i) {
        convert_row(row.get(), static_cast<const T*>(p.prefix) + i * p.embed, p.embed);
        const int64_t token = p.first_prefix_token() + i;
        for (int64_t b = 0; b < p.batch; ++b)
            write_token(p, row.get(), no_bias.get(), position_of<T>(p, token), b * p.tokens() + token);
    }
}

}  // namespace

void patch_embed_forward(const PatchEmbedProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { forward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
