// Attention backward. For every pair of a query and a key that sees each other,
//
//     P = 2^(S - lse),  dP = dO V^T,  dS = P (dP - delta),  delta = rowsum(dO * O) - dlse,
//     dV += P^T dO,     dK += dS^T Q,     dQ += dS K.
//
// A block holds rows of one side, keys or queries, in shared memory and their gradients in registers, and goes through
// the rows of the other side. Both are one piece of code: with X the rows held and Y those that stream by,
//
//     S = X1 Y1^T,  dP = X2 Y2^T,  first += dS Y1,  second += P Y2
//
//     held      X1  X2   Y1  Y2   first  second
//     keys      K   V    Q   dO   dK     dV
//     queries   Q   dO   K   V    dQ     -
#pragma once
#include "attention/backward_launch.h"
#include "attention/backward_rows.cuh"
#include "attention/backward_stream.cuh"
#include "attention/mask.cuh"
#include "attention/row_copy.cuh"
#include "attention/sight.cuh"
#include "gpu/tile_product.cuh"

namespace vlmk::gpu {

// kFirst and kSecond: which gradients it computes. Without kMasked every query sees every key, and scores are products
// times a positive factor.
template <class T, Held kHeld, int kHeadDim, bool kFirst, bool kSecond, bool kMasked>
class Backward {
    static constexpr BackwardTile kTile = backward_tile(kHeld, sizeof(T), kHeadDim, kMasked);
    static constexpr bool kKeys = kHeld == Held::keys;
    static constexpr int kM = kTile.row_blocks, kN = kTile.chunk / 8, kWarpRows = 16 * kM, kHeldRows = held_rows(kTile);
    static constexpr int kStreamed = kTile.streamed, kChunk = kTile.chunk,
                         kThreads = backward_threads(kHeld, sizeof(T), kHeadDim, kMasked);

    using HeldTile = SharedTile<T, kHeldRows, kHeadDim>;
    using StreamedTile = SharedTile<T, kStreamed, kHeadDim>;
    using Stream = RowStream<StreamedTile, kThreads>;
    using Statistics = StatisticsCopy<kStreamed, kThreads>;
    using Gradient = TileSum<kM, kHeadDim / 8>;
    using Scores = TileSum<kM, kN>;
    static constexpr int kHeldBytes = (kFirst ? 2 : 1) * HeldTile::kBytes;
    static constexpr int kStageBytes = Stream::kBytes + (kKeys ? Statistics::kBytes : 0);
    static_assert(kHeldBytes + 2 * kStageBytes == backward_shared_bytes(kTile, sizeof(T), kHeld, kFirst),
                  "the plan and the kernel agree on shared memory");

  public:
    VLMK_DEVICE explicit Backward(const BackwardLaunch& launch)
        : p_(launch.problem), all_statistics_(launch.statistics) {
        find_work(launch);
        const int length = kKeys ? s_.seqlen_k : s_.seqlen_q, last = min(first_ + launch.block_rows, length) - 1;
        rows_ = last + 1 - first_;
        range_ = kKeys ? Range{row_range(p_, s_, first_).low, row_range(p_, s_, last).high}
                       : Range{key_range(p_, s_, first_).low, key_range(p_, s_, last).high};
        warp_row_ = static_cast<int>(threadIdx.x) / kWarpLanes * kWarpRows;
        extern __shared__ __align__(16) char shared[];
        base_ = shared_address(shared);
        const bool adds = p_.mask.data != nullptr && p_.mask.dtype != DType::boolean;
        late_ = !kMasked || (p_.softcap == 0.0f && !adds && p_.scale > 0.0f && p_.scale < infinity());
        factor_ = late_ ? p_.scale * kLog2E : 1.0f;
    }

    VLMK_DEVICE void run() {
        if (rows_ <= 0) return;
        start_held();
        Gradient first, second;
        for (int head = first_head_; head < end_head_; ++head) add_head(head, first, second);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        if constexpr (kFirst) write(first, p_.scale, kKeys ? p_.grad_key : p_.grad_query);
        if constexpr (kSecond) write(second, 1.0f, p_.grad_value);
    }

  private:
    // --- what to do ---

    // Sets the sequence, the heads of both sides and the first row held. Blocks of one head are neighbours: they share
    // what streams by in the cache.
    VLMK_DEVICE void find_work(const BackwardLaunch& launch) {
        const int heads = static_cast<int>(kKeys ? p_.heads_k : p_.heads_q);
        const int group = static_cast<int>(p_.heads_q / p_.heads_k);
        const int number = static_cast<int>(blockIdx.x % static_cast<uint32_t>(launch.row_blocks));
        const int others = static_cast<int>(blockIdx.x / static_cast<uint32_t>(launch.row_blocks));
        held_head_ = others % heads;
        first_head_ = kKeys ? held_head_ * group : held_head_ / group;
        end_head_ = first_head_ + (kKeys ? group : 1);
        const int32_t* boundaries = kKeys ? p_.cu_seqlens_k : p_.cu_seqlens_q;
        if (boundaries == nullptr) {
            s_ = find_sequence(p_, others / heads);
            first_ = number * launch.block_rows;
            return;
        }
        const int64_t rows = kKeys ? p_.seqlen_k : p_.seqlen_q;
        const PackedBlock block = find_packed_block(boundaries, p_.batch, rows, launch.block_rows, number);
        s_ = find_sequence(p_, block.sequence);
        first_ = block.block * launch.block_rows;
        // Keys behind the last sequence, which no query sees.
        if (kKeys && block.sequence == static_cast<int>(p_.batch)) {
            s_.seqlen_k = static_cast<int>(rows) - s_.first_k;
            s_.seqlen_q = 0;
        }
    }

    // Columns that products run over. Kernels of many head_dims go in steps, those of 16-bit numbers of 16.
    VLMK_DEVICE int depth() const {
        const int head_dim = static_cast<int>(p_.head_dim);
        return sizeof(T) == 4 ? head_dim : kHeadDim == kLargestHeadDim ? (head_dim + 15) / 16 * 16 : kHeadDim;
    }

    // --- tensors ---

    VLMK_DEVICE const HeadTensor& x1() const { return kKeys ? p_.key : p_.query; }
    VLMK_DEVICE const HeadTensor& x2() const { return kKeys ? p_.value : p_.grad_out; }
    VLMK_DEVICE const HeadTensor& y1() const { return kKeys ? p_.query : p_.key; }
    VLMK_DEVICE const HeadTensor& y2() const { return kKeys ? p_.grad_out : p_.value; }
    VLMK_DEVICE T* held(const HeadTensor& t, int row) const {
        return row_pointer<T>(t, s_, kKeys ? s_.first_k : s_.first_q, held_head_, first_ + row);
    }
    VLMK_DEVICE const T* streamed(const HeadTensor& t, int head, int row) const {
        return row_pointer<const T>(t, s_, kKeys ? s_.first_q : s_.first_k, head, row);
    }

    VLMK_DEVICE void start_held() const {
        const int columns = static_cast<int>(p_.head_dim);
        using Copy = RowCopy<HeldTile, kThreads>;
        Copy::part(HeldTile(base_), rows_, kHeldRows, columns, [&](int row) { return held(x1(), row); });
        if constexpr (kFirst)
            Copy::part(HeldTile(base_ + HeldTile::kBytes), rows_, kHeldRows, columns,
                       [&](int row) { return held(x2(), row); });
    }

    VLMK_DEVICE void write(const Gradient& gradient, float scale, const HeadTensor& to) const {
        if (warp_row_ >= rows_) return;
        write_rows(gradient, scale, HeldTile(base_), warp_row_, held(to, 0), to.row_stride, rows_,
                   static_cast<int>(p_.head_dim));
    }

    // --- masks ---

    // Where the next tile starts, from `first` on, that the tile flags let some row held see.
    VLMK_DEVICE int find_visible(int first) const {
        if (!kMasked || p_.visible.data == nullptr) return first;
        const int tokens = static_cast<int>(p_.tokens_per_tile);
        for (; first < range_.high; first += kStreamed) {
            const Range other{first, min(first + kStreamed, range_.high)}, mine{first_, first_ + rows_};
            const Range queries = kKeys ? other : mine, keys = kKeys ? mine : other;
            const int tile = keys.low / tokens, tiles = (keys.high - 1) / tokens + 1 - tile;
            bool any = false;
            for (int i = threadIdx.x; i < (queries.high - queries.low) * tiles; i += kThreads)
                any = any ||
                      p_.visible
                          .data[s_.index * p_.visible.batch_stride + (queries.low + i / tiles) * p_.visible.row_stride +
                                (tile + i % tiles) * p_.visible.column_stride];
            if (__syncthreads_or(any) != 0) break;
        }
        return first;
    }

    // What the warp's rows and a chunk of those that stream by see of each other.
    VLMK_DEVICE Sight sight(int head, int chunk) const {
        const Range mine{first_ + warp_row_, min(first_ + warp_row_ + kWarpRows, first_ + rows_)};
        const Range other{chunk, min(chunk + kChunk, range_.high)};
        const Range queries = kKeys ? other : mine, keys = kKeys ? mine : other;
        const Range first = key_range(p_, s_, queries.low), last = key_range(p_, s_, queries.high - 1);
        // Keys past the end must be hidden where they are columns: they meet others in sums.
        const int end = kKeys ? keys.high : chunk + kChunk;
        Sight seen{first.low < keys.high && keys.low < last.high, last.low <= keys.low && end <= first.high};
        if (!seen.some || !masks_pairs(p_)) return seen;
        const int query_head = kKeys ? head : held_head_;
        const Sight masks = look(p_, s_, keys.low, keys.high - keys.low, kKeys ? kChunk : kWarpRows,
                                 [&](int row) { return Place{query_head, min(queries.low + row, queries.high - 1)}; });
        const bool padding = any_padding(p_.query_padding, queries) && any_padding(p_.key_padding, keys);
        return {masks.some, seen.every && masks.every && !padding};
    }

    // Of at most 32 rows.
    VLMK_DEVICE bool any_padding(const FlagTensor& padding, Range rows) const {
        if (padding.data == nullptr) return false;
        const int row = min(rows.low + lane_index(), rows.high - 1);
        return __any_sync(kWholeWarp, padding.data[s_.index * padding.batch_stride + row * padding.row_stride]) != 0;
    }

    // Adds the mask, or -inf where a pair does not see each other.
    VLMK_DEVICE void add_masks(int head, int chunk, Scores& scores) const {
        constexpr int kQueries = kKeys ? 2 * kN : 2 * kM, kKeyCount = kKeys ? 2 * kM : 2 * kN;
        const auto row_at = [&](int i) { return first_ + warp_row_ + lane_index() / 4 + 8 * i; };
        const auto column_at = [&](int i) { return chunk + lane_index() % 4 * 2 + i / 2 * 8 + i % 2; };
        const auto element = [](int row, int column) {
            return (row / 2 * kN + column / 2) * 4 + row % 2 * 2 + column % 2;
        };
        // The queries of a lane are looked at in a loop, which registers cannot be: all of them at once would make this
        // several times as long.
        float addend[kM * kN * 4];
#pragma unroll 1
        for (int i = 0; i < kQueries; ++i) {
            const int position = kKeys ? column_at(i) : row_at(i);
            const bool there = position < s_.seqlen_q;
            const Range keys = key_range(p_, s_, position);
            const RowMask mask(p_, s_, kKeys ? head : held_head_, there ? position : 0);
#pragma unroll
            for (int j = 0; j < kKeyCount; ++j) {
                const int key = kKeys ? row_at(j) : column_at(j);
                addend[kKeys ? element(j, i) : element(i, j)] =
                    there && keys.holds(key) ? mask.apply(key, 0.0f) : -infinity();
            }
        }
        for_each(scores, [&](int e, float& score) { score += addend[e]; });
    }

    // Products to scores in powers of two, slopes of the softcap included.
    VLMK_DEVICE void scale_scores(Scores& scores, Scores& slopes) const {
        for_each(scores, [&](int e, float& score) {
            float slope = 1.0f;
            score = scaled_score(p_, score, &slope);
            slopes[e / (4 * kN)][e / 4 % kN].v[e % 4] *= slope;
        });
    }

    template <class Visit>
    VLMK_DEVICE static void for_each(Scores& scores, const Visit& visit) {
#pragma unroll
        for (int e = 0; e < kM * kN * 4; ++e) visit(e, scores[e / (4 * kN)][e / 4 % kN].v[e % 4]);
    }

    // --- a head of the other side ---

    VLMK_DEVICE void add_head(int head, Gradient& first, Gradient& second) const {
        int tile = find_visible(range_.low);
        if (tile >= range_.high) return;
        Stream stream(streamed(y1(), head, tile), y1(), streamed(y2(), head, tile), y2(),
                      static_cast<int>(p_.head_dim));
        Statistics statistics(all_statistics_ + (kKeys ? lse_index(p_, s_, head, tile) : 0));
        const uint32_t stages = base_ + kHeldBytes;
        const auto start = [&](uint32_t stage, int count) {
            stream.start(stages + stage, count);
            if constexpr (kKeys) statistics.start(stages + stage + Stream::kBytes, all_statistics_, count);
        };
        RowStatistics mine[kM][2];  // of queries held
        if constexpr (!kKeys)
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int i = 0; i < 2; ++i)
                    mine[m][i] = all_statistics_[lse_index(
                        p_, s_, held_head_,
                        min(first_ + warp_row_ + 16 * m + Accumulator<>::row(2 * i), first_ + rows_ - 1))];

        const TileView<HeldTile> x1_rows(HeldTile(base_), warp_row_), x2_rows = x1_rows + HeldTile::kBytes;
        start(0, range_.high - tile);
        uint32_t stage = 0;
#pragma unroll 1
        while (tile < range_.high) {
            commit_copies();
            wait_copies<0>();
            __syncthreads();
            const int next = find_visible(tile + kStreamed);
            const uint32_t next_stage = kStageBytes - stage;
            if (next < range_.high) {
                stream.advance(next - tile);
                statistics.advance(next - tile);
                start(next_stage, range_.high - next);
            }
            const int count = warp_row_ < rows_ ? min(kStreamed, range_.high - tile) : 0;
            TileView<StreamedTile> y1_rows{StreamedTile(stages + stage)};
            StatisticsView queries(stages + stage + Stream::kBytes);
#pragma unroll 1
            for (int chunk = 0; chunk < count; chunk += kChunk) {
                add_chunk(head, tile + chunk, count - chunk, x1_rows, x2_rows, y1_rows, queries, mine, first, second);
                y1_rows = y1_rows + StreamedTile::offset(kChunk, 0);
                queries.advance(kChunk);
            }
            tile = next;
            stage = next_stage;
        }
        __syncthreads();  // the next head starts in the first stage
    }

    VLMK_DEVICE void add_chunk(int head, int position, int count, const TileView<HeldTile>& x1,
                               const TileView<HeldTile>& x2, const TileView<StreamedTile>& y1,
                               const StatisticsView& queries, const RowStatistics (&mine)[kM][2], Gradient& first,
                               Gradient& second) const {
        Sight seen{true, true};
        if constexpr (kMasked) seen = sight(head, position);
        if (!seen.some) return;

        const TileView<StreamedTile> y2 = y1 + StreamedTile::kBytes;
        Scores scores, slopes;
        float2 lse[kN];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
            if constexpr (kKeys) lse[n] = queries.minus_lse(8 * n);
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                if constexpr (kKeys)
                    slopes[m][n] = queries.minus_delta(8 * n);
                else
                    slopes[m][n] = {{mine[m][0].minus_delta, mine[m][0].minus_delta, mine[m][1].minus_delta,
                                     mine[m][1].minus_delta}};
            }
        }
        add_product_transposed(scores, x1, y1, depth());
        if constexpr (kFirst) add_product_transposed(slopes, x2, y2, depth());
        if constexpr (kMasked) {
            if (!late_) scale_scores(scores, slopes);
            if (!seen.every) add_masks(head, position, scores);
        } else if constexpr (!kKeys) {
            if (count < kChunk)  // keys past the end meet others in sums
                for_each(scores, [&](int e, float& score) {
                    if (e / 4 % kN * 8 + Accumulator<>::column(e % 4) >= count) score = -infinity();
                });
        }
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float minus_lse = !kKeys ? mine[m][i / 2].minus_lse : i % 2 == 0 ? lse[n].x : lse[n].y;
                    float& probability = scores[m][n].v[i];
                    probability = exp2(fmaf(probability, factor_, minus_lse));
                    slopes[m][n].v[i] *= probability;
                }
        if constexpr (kSecond) add_product(second, as_left_rows<T>(scores), y2, depth());
        if constexpr (kFirst) add_product(first, as_left_rows<T>(slopes), y1, depth());
    }

    const AttentionProblem& p_;
    RowStatistics* const& all_statistics_;
    Sequence s_;
    int held_head_, first_head_, end_head_;
    int first_, rows_, warp_row_;  // rows held: the first, how many, and which of them a warp's are
    Range range_;                  // of the other side: what some row held can see by causality and window
    uint32_t base_;
    bool late_;  // a positive factor waits until the exponential where nothing is added to scores
    float factor_;
};

}  // namespace vlmk::gpu
