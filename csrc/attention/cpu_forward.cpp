// Flash attention forward on the CPU: for a panel of query rows, over blocks of keys, S^T = K Q^T and the online
// softmax. Keys and values are packed once per key head, or read once where rows are few; nothing of size Sq x Sk
// exists.
#include "attention/decode.h"
#include "attention/next_head.h"
#include "attention/online_columns.h"
#include "attention/packed_keys.h"
#include "core/cache.h"
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
