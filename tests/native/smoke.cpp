// The kernels without Python: each operation against plain loops in double. Built for a machine that tests cannot run
// on (aarch64, under an emulator), it shows that the portable sources are right there too. Prints one line an
// operation.
#include <cmath>
#include <cstdio>
#include <vector>

#include "attention/problem.h"
#include "contrastive/problem.h"
#include "core/half.h"
#include "patch_embed/problem.h"

using namespace vlmk;

namespace {

// Reproducible numbers in [-1, 1).
std::vector<float> numbers(size_t count, uint32_t seed) {
    std::vector<float> out(count);
    for (float& x : out) {
        seed = seed * 1664525u + 1013904223u;
        x = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
    }
    return out;
}

template <class T>
std::vector<T> rounded(const std::vector<float>& from) {
    std::vector<T> out(from.size());
    for (size_t i = 0; i < from.size(); ++i) from_float(from[i], out[i]);
    return out;
}

int failures = 0;

void report(const char* what, double error, double allowed) {
    std::printf("%s: error %.1e of %.1e allowed\n", what, error, allowed);
    if (!(error <= allowed)) ++failures;
}

template <class T>
void check_attention(const char* what, DType dtype, double allowed) {
    const int64_t heads = 2, sq = 37, sk = 53, d = 24;
    const std::vector<T> q = rounded<T>(numbers(heads * sq * d, 1)), k = rounded<T>(numbers(heads * sk * d, 2)),
                         v = rounded<T>(numbers(heads * sk * d, 3)), g = rounded<T>(numbers(heads * sq * d, 4));
    std::vector<T> out(q.size()), dq(q.size()), dk(k.size()), dv(v.size());
    std::vector<float> lse(heads * sq);
    AttentionProblem p;
    p.dtype = dtype;
    p.batch = 1;
    p.heads_q = p.heads_k = heads;
    p.head_dim = d;
    p.seqlen_q = sq;
    p.seqlen_k = sk;
    p.scale = 0.2f;
    p.causal = Causal::bottom_right;
    const auto view = [&](const std::vector<T>& t, int64_t rows) {
        return HeadTensor{const_cast<T*>(t.data()), heads * rows * d, rows * d, d};
    };
    p.query = view(q, sq), p.out = view(out, sq), p.grad_out = view(g, sq), p.grad_query = view(dq, sq);
    p.key = view(k, sk), p.value = view(v, sk), p.grad_key = view(dk, sk), p.grad_value = view(dv, sk);
    p.lse = lse.data();
    baseline::attention_forward(p);
    baseline::attention_backward(p);

    double worst = 0, worst_grad = 0;
    for (int64_t h = 0; h < heads; ++h) {
        std::vector<double> grad_value(sk * d);
        for (int64_t i = 0; i < sq; ++i) {
            const T* row = q.data() + (h * sq + i) * d;
            std::vector<double> weight(i + sk - sq + 1), expected(d);
            double total = 0;
            for (size_t j = 0; j < weight.size(); ++j) {
                double dot = 0;
                for (int64_t c = 0; c < d; ++c) dot += double(to_float(row[c])) * to_float(k[(h * sk + j) * d + c]);
                total += weight[j] = std::exp(dot * p.scale);
            }
            for (size_t j = 0; j < weight.size(); ++j)
                for (int64_t c = 0; c < d; ++c) {
                    expected[c] += weight[j] / total * to_float(v[(h * sk + j) * d + c]);
                    grad_value[j * d + c] += weight[j] / total * to_float(g[(h * sq + i) * d + c]);
                }
            for (int64_t c = 0; c < d; ++c)
                worst = std::fmax(worst, std::fabs(expected[c] - to_float(out[(h * sq + i) * d + c])));
        }
        for (int64_t at = 0; at < sk * d; ++at)
            worst_grad = std::fmax(worst_grad, std::fabs(grad_value[at] - to_float(dv[h * sk * d + at])));
    }
    std::printf("%s ", what);
    report("attention forward", worst, allowed);
    std::printf("%s ", what);
    report("attention backward", worst_grad, 4 * allowed);
}

void check_patch_embed() {
    const int64_t side = 13, patch = 4, grid = side / patch, embed = 19, elements = 3 * patch * patch;
    std::vector<uint8_t> pixels;
    for (float x : numbers(3 * side * side, 5)) pixels.push_back(static_cast<uint8_t>((x + 1) * 127.5f));
    const std::vector<float> weight = numbers(embed * elements, 6), mean{0.5f, 0, -0.25f}, deviation{0.2f, 0.3f, 0.5f};
    std::vector<float> out(grid * grid * embed);
    PatchEmbedProblem p;
    p.source.data = pixels.data();
    p.source.dtype = DType::u8;
    p.source.channels = 3;
    for (int axis : {1, 2}) p.source.grid[axis] = grid, p.source.patch[axis] = patch;
    p.source.channel_stride = side * side;
    p.source.pixel_stride[1] = side, p.source.pixel_stride[2] = 1;
    p.source.grid_stride[1] = patch * side, p.source.grid_stride[2] = patch;
    p.batch = 1;
    p.embed = embed;
    p.mean = mean.data(), p.deviation = deviation.data();
    p.weight = weight.data();
    p.out = out.data();
    baseline::patch_embed_forward(p);
    double worst = 0;
    for (int64_t token = 0; token < grid * grid; ++token)
        for (int64_t e = 0; e < embed; ++e) {
            double sum = 0;
            for (int64_t n = 0; n < elements; ++n) {
                const int64_t c = n / (patch * patch), y = n / patch % patch, x = n % patch;
                const uint8_t pixel = pixels[(c * side + token / grid * patch + y) * side + token % grid * patch + x];
                sum += (pixel / 255.0 - mean[c]) / deviation[c] * weight[e * elements + n];
            }
            worst = std::fmax(worst, std::fabs(sum - out[token * embed + e]));
        }
    report("patch embedding", worst, 1e-4);
}

void check_contrastive() {
    const int64_t count = 41, dim = 23;
    const std::vector<float> image = numbers(count * dim, 7), text = numbers(count * dim, 8);
    std::vector<float> statistics[8];
    for (auto& s : statistics) s.resize(count);
    InfoNceProblem p;
    p.dim = dim;
    p.image.data = image.data(), p.text.data = text.data();
    p.image.count = p.text.count = count;
    p.image.row_stride = p.text.row_stride = dim;
    const float scale = 0.7f;
    p.scale = &scale;
    p.rows = {statistics[0].data(), statistics[1].data(), statistics[2].data(), statistics[3].data()};
    p.columns = {statistics[4].data(), statistics[5].data(), statistics[6].data(), statistics[7].data()};
    baseline::info_nce_forward(p);
    double worst = 0;
    for (int64_t i = 0; i < count; ++i) {
        double total = 0;
        for (int64_t j = 0; j < count; ++j) {
            double dot = 0;
            for (int64_t c = 0; c < dim; ++c) dot += double(image[i * dim + c]) * text[j * dim + c];
            total += std::exp(dot * scale);
        }
        worst = std::fmax(worst, std::fabs(std::log(total) - statistics[0][i]));
    }
    report("contrastive loss", worst, 1e-5);
}

}  // namespace

int main() {
    check_attention<float>("fp32", DType::f32, 2e-6);
    check_attention<bf16>("bf16", DType::bf16, 8e-3);
    check_attention<f16>("fp16", DType::f16, 1e-3);
    check_patch_embed();
    check_contrastive();
    return failures;
}
