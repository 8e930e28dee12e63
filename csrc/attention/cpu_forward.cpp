// Flash attention forward on the CPU: for a panel of query rows, over blocks of keys, S^T = K Q^T and the online
// softmax. Keys and values are packed once per key head, or read once where rows are few; nothing of size Sq x Sk
// exists.
#include "attention/few_rows.h"
#include "attention/next_head.h"
#include "attention/online_columns.h"
#include "attention/packed_keys.h"
#include "attention/parts.h"
#include "core/dispatch.h"
#include "core/parallel.h"

namespace vlmk::VLMK_ISA {
namespace {

// Which blocks of keys some row of a head sees: others need not be packed.
class SeenBlocks {
  public:
    SeenBlocks(const AttentionProblem& p, const Sequence& s, int64_t key_head, const KeyBlocks& blocks)
        : seen_(blocks.count) {
        fill_zero(seen_.get(), blocks.count);
        int64_t unseen = blocks.count;
        for (int64_t r = 0; r < row_blocks<kPanelRows>(p, s) && unseen > 0; ++r) {
            const RowBlock<kPanelRows> rows(p, s, key_head, r * kPanelRows);
            if (invisible(p, s, rows, 0, blocks.total)) continue;
            for (int64_t b = 0; b < blocks.count; ++b)
                if (!seen_[b] && !invisible(p, s, rows, blocks.begin(b), blocks.end(b))) seen_[b] = true, --unseen;
        }
    }
    bool operator[](int64_t block) const { return seen_[block]; }

  private:
    Buffer<bool> seen_;
};

// All rows of a key head. each(count, task) runs tasks 0 to count - 1, in turn or side by side. Keys come in chunks
// whose packed blocks stay in the second-level cache while all panels of rows pass; between chunks panels wait in
// memory. ask(part, parts) is called in front of every block of keys.
template <class T, class Each, class Ask>
void attend_rows(const AttentionProblem& p, const Sequence& s, int64_t head, const Each& each, const Ask& ask) {
    const int64_t panels = row_blocks<kPanelRows>(p, s);
    const KeyBlocks blocks(s.seqlen_k, kForwardKeys);
    const SeenBlocks seen(p, s, head, blocks);
    const int64_t bytes = blocks.count * PackedKeys<T>::block_bytes(blocks.longest, p.head_dim),
                  room = cache_sizes().second / 4 * 3, chunks = std::max<int64_t>((bytes + room - 1) / room, 1),
                  chunk = (blocks.count + chunks - 1) / chunks;
    PackedKeys<T> packed(chunk, blocks.longest, p.head_dim);
    const KeptPanels kept(chunks > 1 ? panels : 0, p.head_dim);
    for (int64_t c = 0; c < chunks; ++c) {
        const int64_t first = std::min(c * chunk, blocks.count), last = std::min(first + chunk, blocks.count);
        each(last - first, [&](int64_t i) {
            if (seen[first + i]) packed.pack(p, s, head, blocks.begin(first + i), blocks.length(first + i), i);
        });
        const bool is_last = c + 1 == chunks;
        each(panels, [&](int64_t r) {
            const RowBlock<kPanelRows> rows(p, s, head, r * kPanelRows);
            const bool sees = first < last && !invisible(p, s, rows, blocks.begin(first), blocks.end(last - 1));
            if (!sees && !is_last) return;
            const ProductScope scope;
            OnlineColumns<T> panel(p, s, blocks.longest);
            panel.start(rows);
            if (c > 0) panel.resume(kept, r);
            for (int64_t b = first; b < last && sees; ++b) {
                ask(r * blocks.count + b, panels * blocks.count);
                const int64_t begin = blocks.begin(b), end = blocks.end(b);
                if (!invisible(p, s, rows, begin, end))
                    panel.add_keys(begin, end, packed.keys(b - first), packed.values(b - first));
            }
            if (is_last)
                panel.write();
            else
                panel.keep(kept, r);
        });
    }
}

// Rows of a packed tensor that belong to no sequence.
template <class T>
void clear_unused_rows(const AttentionProblem& p) {
    if (p.cu_seqlens_q == nullptr) return;
    for (int64_t head = 0; head < p.heads_q; ++head)
        for (int64_t row = p.cu_seqlens_q[p.batch]; row < p.seqlen_q; ++row) {
            fill_zero(static_cast<T*>(p.out.data) + head * p.out.head_stride + row * p.out.row_stride, p.head_dim);
            if (p.lse != nullptr) p.lse[head * p.seqlen_q + row] = -kInfinity;
        }
}

// So few rows, and so many keys, that reading them is the work.
bool has_few_rows(const AttentionProblem& p, const Sequence& s) {
    const int64_t rows = p.heads_q / p.heads_k * s.seqlen_q;
    return rows <= kFewRows && s.seqlen_k >= 2 * rows;
}
// Tiles multiply more than a few rows faster than vectors do, packing included, but for fp32.
template <class T>
bool tiles_pay(const AttentionProblem& p, const Sequence& s) {
    constexpr int64_t kRows = 8;
    using U = typename UnitOf<T>::type;
    return U::kTiles && U::kParts < 3 && p.heads_q / p.heads_k * s.seqlen_q > kRows;
}

// The panel's way through keys [first, last), which are packed for it alone.
template <class T>
void stream_keys(OnlineColumns<T>& panel, int64_t key_head, int64_t first, int64_t last) {
    PackedKeys<T> packed(1, kStreamKeys, panel.p.head_dim);
    for (int64_t begin = first; begin < last; begin += kStreamKeys) {
        const int64_t end = std::min(begin + kStreamKeys, last);
        if (invisible(panel.p, panel.s, panel.block, begin, end)) continue;
        packed.pack(panel.p, panel.s, key_head, begin, end - begin, 0);
        panel.add_keys(begin, end, packed.keys(0), packed.values(0));
    }
}

// Output and logsumexp of one row; `sum` is that of its probabilities.
template <class T>
inline void write_row(const AttentionProblem& p, const Sequence& s, const Row& row, const float* out, float sum,
                      float lse) {
    T* to = row_pointer<T>(p.out, s, s.first_q, row.head, row.position);
    // Rows that saw nothing give 0; NaN compares unequal to 0 and stays NaN.
    if (sum == 0.0f)
        fill_zero(to, p.head_dim);
    else
        convert_row(to, out, p.head_dim, 1.0f / sum);
    if (p.lse != nullptr) p.lse[lse_index(p, s, row.head, row.position)] = lse;
}

// Few rows of heads [first_head, last_head) and keys [first, last); use(i, row, out, reference, sum) receives the state
// of every row, counted over the heads, in the end.
template <class T, class Use>
void attend_few(const AttentionProblem& p, const Sequence& s, int64_t first_head, int64_t last_head, int64_t first,
                int64_t last, const Use& use) {
    if (!tiles_pay<T>(p, s)) {
        FewRows<T> few(p, s, first_head, last_head - first_head);
        few.add_keys(first, last);
        for (int64_t i = 0; i < few.rows(); ++i) use(i, few.row(i), few.out(i), few.reference(i), few.sum(i));
        return;
    }
    const ProductScope scope;
    OnlineColumns<T> panel(p, s, kStreamKeys);
    const int64_t stride = Panels(p.head_dim).padded_columns();
    Buffer<float> out(kPanelRows * stride);
    for (int64_t head = first_head, i = 0; head < last_head; ++head) {
        panel.start(RowBlock<kPanelRows>(p, s, head, 0));
        stream_keys(panel, head, first, last);
        panel.rows_of_sums(out.get(), stride);
        for (int64_t r = 0; r < panel.block.count; ++r, ++i)
            use(i, panel.block.rows[r], out.get() + r * stride, panel.reference(r), panel.sum(r));
    }
}

// All rows of a key head, counted over the batch: its packed keys stay in the core's own cache.
template <class T>
void attend_head(const AttentionProblem& p, int64_t index) {
    const Sequence s(p, index / p.heads_k);
    const int64_t head = index % p.heads_k;
    if (s.seqlen_q == 0) return;
    if (has_few_rows(p, s)) {
        attend_few<T>(p, s, head, head + 1, 0, s.seqlen_k,
                      [&](int64_t, const Row& row, const float* out, float reference, float sum) {
                          write_row<T>(p, s, row, out, sum, logsumexp({splat(reference), splat(sum)})[0]);
                      });
        return;
    }
    const NextHead<T> next(p, index);
    const auto in_turn = [](int64_t count, const auto& task) {
        for (int64_t i = 0; i < count; ++i) task(i);
    };
    attend_rows<T>(p, s, head, in_turn, [&](int64_t part, int64_t parts) { next.ask_for_part(part, parts); });
}

// Few rows, whose keys are cut into parts that run side by side, and heads into ranges if parts are too few for that.
template <class T>
void attend_few_in_parts(const AttentionProblem& p) {
    const int64_t parts = (p.seqlen_k + kPartKeys - 1) / kPartKeys, rows = p.heads_q / p.heads_k * p.seqlen_q,
                  stride = whole_vectors(p.head_dim);
    constexpr int64_t kTasksPerThread = 4;
    const int64_t ranges = std::clamp<int64_t>(kTasksPerThread * p.threads / (p.batch * parts), 1, p.heads_k);
    Parts kept(p.batch * p.heads_k * parts, rows, stride);
    parallel_for(p.batch * parts * ranges, p.threads, [&](int64_t task) {
        const int64_t range = task % ranges, part = task / ranges % parts, first = part * kPartKeys;
        const Sequence s(p, task / ranges / parts);
        const int64_t first_head = p.heads_k * range / ranges, last_head = p.heads_k * (range + 1) / ranges;
        attend_few<T>(p, s, first_head, last_head, first, std::min(first + kPartKeys, s.seqlen_k),
                      [&](int64_t i, const Row&, const float* out, float reference, float sum) {
                          const int64_t at = (s.index * p.heads_k + first_head + i / rows) * parts + part;
                          std::memcpy(kept.out(at) + i % rows * stride, out,
                                      static_cast<size_t>(stride) * sizeof(float));
                          kept.set_state(at, i % rows, reference, sum);
                      });
    });
    parallel_for(p.batch * p.heads_k, p.threads, [&](int64_t index) {
        const Sequence s(p, index / p.heads_k);
        const RowBlock<kFewRows> block(p, s, index % p.heads_k, 0);
        for (int64_t r = 0; r < block.count; ++r) {
            const Parts::Merged merged = kept.merge(index * parts, (index + 1) * parts, r);
            write_row<T>(p, s, block.rows[r], merged.out, merged.sum, merged.lse);
        }
    });
}

template <class T>
void forward(const AttentionProblem& p) {
    clear_unused_rows<T>(p);
    const int64_t heads = p.batch * p.heads_k;
    if (heads == 0) return;
    if (p.cu_seqlens_q == nullptr && p.seqlen_q > 0 && has_few_rows(p, Sequence(p, 0)) && p.seqlen_k > kPartKeys)
        return attend_few_in_parts<T>(p);
    if (heads >= 2 * p.threads || p.cu_seqlens_q != nullptr || row_blocks<kPanelRows>(p, Sequence(p, 0)) < p.threads) {
        parallel_for(heads, p.threads, [&](int64_t index) { attend_head<T>(p, index); });
        return;
    }
    // Few heads: the threads share the packing and the rows of one head after the other.
    for (int64_t task = 0; task < heads; ++task) {
        const Sequence s(p, task / p.heads_k);
        const auto side_by_side = [&](int64_t count, const auto& one) { parallel_for(count, p.threads, one); };
        attend_rows<T>(p, s, task % p.heads_k, side_by_side, [](int64_t, int64_t) {});
    }
}

}  // namespace

void attention_forward(const AttentionProblem& problem) {
    with_float_type(problem.dtype, [&](auto number) { forward<decltype(number)>(problem); });
}

}  // namespace vlmk::VLMK_ISA
