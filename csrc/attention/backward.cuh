// Attention backward on the GPU. For every pair of a query and a key that sees each other,
//
//     P = 2^(S - lse),  dP = dO V^T,  dS = P (dP - delta),  delta = rowsum(dO * O) - dlse,
//     dV += P^T dO,     dK += dS^T Q,     dQ += dS K.
//
// A block holds rows of one side, keys or queries, in shared memory and their gradients in registers, and walks through
// the rows of the other side. Both are one piece of code: with X the rows held and Y those that stream by,
//
//     S = X1 Y1^T,  dP = X2 Y2^T,  first += dS Y1,  second += P Y2
//
//     held      X1  X2   Y1  Y2   first  second
//     keys      K   V    Q   dO   dK     dV
//     queries   Q   dO   K   V    dQ     -
#pragma once
#include <type_traits>

#include "attention/backward_tiles.h"
#include "attention/mask.cuh"
#include "attention/rows.cuh"
#include "gpu/copy_async.cuh"
#include "gpu/exp2.cuh"
#include "gpu/shared_access.cuh"
#include "gpu/tile_product.cuh"

namespace vlmk::gpu {

template <class T_, Held kHeld_, int kHeadDim_, bool kFirst_, bool kSecond_>
struct BackwardKernel {
    using T = T_;
    static constexpr Held kHeld = kHeld_;
    static constexpr int kHeadDim = kHeadDim_;
    static constexpr bool kFirst = kFirst_, kSecond = kSecond_;  // which gradients it computes
    static constexpr BackwardTile kTile = backward_tile(kHeld, kHeadDim);
    static constexpr int kThreads = kTile.warps * kWarpLanes;
    static constexpr int kRowBlocks = kTile.row_blocks, kColumnBlocks = kTile.chunk / 8;
    static constexpr int kHeldRows = held_rows(kTile);

    using HeldTile = SharedTile<T, kHeldRows, kHeadDim>;
    using StreamedTile = SharedTile<T, kTile.streamed, kHeadDim>;
    static constexpr int kStageBytes =
        2 * StreamedTile::kBytes + kTile.streamed * static_cast<int>(sizeof(RowStatistics));

    static_assert((kFirst ? 2 : 1) * HeldTile::kBytes + 2 * kStageBytes == backward_shared_bytes(kTile, kFirst),
                  "the plan and the kernel agree on shared memory");

    // Columns that products run over. The large head_dims share one kernel, in steps of 16.
    VLMK_DEVICE static constexpr int depth(int head_dim) {
        return kHeadDim == kLargestHeadDim ? (head_dim + 15) / 16 * 16 : kHeadDim;
    }

    using Gradient = TileSum<kRowBlocks, kHeadDim / 8>;
    using Scores = TileSum<kRowBlocks, kColumnBlocks>;
};

// The two tensors of a side and the gradients.
struct Side {
    const HeadTensor &first, &second;
};
VLMK_DEVICE Side key_side(const AttentionProblem& p) { return {p.key, p.value}; }
VLMK_DEVICE Side query_side(const AttentionProblem& p) { return {p.query, p.grad_out}; }

// Copies rows of global tensors to shared tiles, 16 bytes a thread; columns beyond the head_dim and rows beyond the
// last become 0.
template <class Tile, int kThreads>
class RowCopy {
  public:
    VLMK_DEVICE explicit RowCopy(int head_dim)
        : row_(static_cast<int>(threadIdx.x) / kChunks), column_(static_cast<int>(threadIdx.x) % kChunks * 8) {
        bytes_ = column_ < head_dim ? kChunkBytes : 0;
        from_column_ = column_ < head_dim ? column_ : 0;
    }

    // `from` is where the first row starts, `rows` (at least 1) how many there are.
    VLMK_DEVICE void start(const Tile& to, const typename Tile::Element* from, int64_t stride, int rows) const {
        if (kThreads % kChunks != 0 && row_ >= kRowsAtOnce) return;
#pragma unroll
        for (int pass = 0; pass < Tile::kRows; pass += kRowsAtOnce) {
            const int row = pass + row_;
            if (Tile::kRows % kRowsAtOnce != 0 && row >= Tile::kRows) break;
            const bool there = row < rows;
            copy_async_or_zero(to.address(row, column_), from + (there ? row : 0) * stride + from_column_,
                               there ? bytes_ : 0);
        }
    }

  private:
    static constexpr int kChunks = Tile::kColumns / 8, kRowsAtOnce = kThreads / kChunks;
    int row_, column_, from_column_, bytes_;
};

// The rows that stream by a block: tiles of the rows in `range`, of one head after the other.
struct Walk {
    Range range;
    int head, last_head, first;

    VLMK_DEVICE bool ended() const { return head > last_head; }
    VLMK_DEVICE void advance(int rows) {
        first += rows;
        if (first < range.high) return;
        first = range.low;
        ++head;
    }
};

// Where a block's rows are.
struct HeldRows {
    Sequence sequence;
    int key_head, head;  // head: of queries
    int first;

    template <Held kHeld>
    VLMK_DEVICE static HeldRows find(const AttentionProblem& p, int block_rows) {
        constexpr bool kKeys = kHeld == Held::keys;
        const int heads = static_cast<int>(kKeys ? p.heads_k : p.heads_q),
                  group = static_cast<int>(p.heads_q / p.heads_k);
        const int rows = static_cast<int>(kKeys ? p.seqlen_k : p.seqlen_q);
        const int32_t* boundaries = kKeys ? p.cu_seqlens_k : p.cu_seqlens_q;
        HeldRows held;
        int head, sequence;
        if (boundaries == nullptr) {
            const int blocks = (rows + block_rows - 1) / block_rows, number = static_cast<int>(blockIdx.x) / blocks;
            held.first = static_cast<int>(blockIdx.x) % blocks * block_rows;
            head = number % heads;
            sequence = number / heads;
        } else {
            const int number = static_cast<int>(blockIdx.x) / heads;
            head = static_cast<int>(blockIdx.x) % heads;
            const PackedBlock block = find_packed_block(boundaries, p.batch, rows, block_rows, number);
            sequence = block.sequence;
            held.first = block.block * block_rows;
        }
        held.sequence = find_sequence(p, sequence);
        if (kKeys && boundaries != nullptr && sequence == static_cast<int>(p.batch)) {
            held.sequence.seqlen_k = rows - held.sequence.first_k;
            held.sequence.seqlen_q = 0;
        }
        held.key_head = kKeys ? head : head / group;
        held.head = kKeys ? head * group : head;
        return held;
    }
};

// True if causality, window and the ends of the sequence hide nothing between these queries and keys.
VLMK_DEVICE bool all_in_range(const AttentionProblem& p, const Sequence& s, Range queries, Range keys) {
    return key_range(p, s, queries.high - 1).low <= keys.low && keys.high <= key_range(p, s, queries.low).high;
}

// True, for all threads of the block, if one of these queries sees a tile that one of these keys belongs to.
VLMK_DEVICE bool any_tile_visible(const AttentionProblem& p, const Sequence& s, Range queries, Range keys) {
    const FlagTensor& visible = p.visible;
    const int per_tile = static_cast<int>(p.tokens_per_tile);
    const int first_tile = keys.low / per_tile, tiles = (keys.high - 1) / per_tile + 1 - first_tile;
    int any = 0;
    for (int i = threadIdx.x; i < (queries.high - queries.low) * tiles; i += blockDim.x)
        any |= visible.data[s.index * visible.batch_stride + (queries.low + i / tiles) * visible.row_stride +
                            (first_tile + i % tiles) * visible.column_stride];
    return __syncthreads_or(any) != 0;
}

// What is to be added to the scores of a warp's chunk: the mask, or -inf where a pair does not see each other. `held`
// and `streamed` are the positions of the chunk's first row and column.
template <class Kernel>
VLMK_DEVICE void add_masks(const AttentionProblem& p, const Sequence& s, int head, int held, int streamed,
                           typename Kernel::Scores& scores) {
    constexpr int kM = Kernel::kRowBlocks, kN = Kernel::kColumnBlocks;
    constexpr bool kKeys = Kernel::kHeld == Held::keys;
    constexpr int kQueries = kKeys ? 2 * kN : 2 * kM, kKeyCount = kKeys ? 2 * kM : 2 * kN;
    const int lane = lane_index();
    // The queries of a lane are looked at in a loop, which registers cannot be: they would make this several times as
    // long. Masks that are this rich are bound by reading them.
    float addend[kM * kN * 4];
    const auto row_at = [&](int i) { return held + lane / 4 + 8 * i; };
    const auto column_at = [&](int i) { return streamed + lane % 4 * 2 + i / 2 * 8 + i % 2; };
    const auto element = [](int row, int column) { return (row / 2 * kN + column / 2) * 4 + row % 2 * 2 + column % 2; };
#pragma unroll 1
    for (int i = 0; i < kQueries; ++i) {
        const int position = kKeys ? column_at(i) : row_at(i);
        const bool there = position < s.seqlen_q;
        const Range keys = key_range(p, s, position);
        const RowMask mask(p, s, head, there ? position : 0);
#pragma unroll
        for (int j = 0; j < kKeyCount; ++j) {
            const int key = kKeys ? row_at(j) : column_at(j);
            addend[kKeys ? element(j, i) : element(i, j)] =
                there && keys.holds(key) ? mask.apply(key, 0.0f) : -infinity();
        }
    }
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) scores[m][n].v[i] += addend[(m * kN + n) * 4 + i];
}

// Products to scores in powers of two, slopes of the softcap included.
template <class Kernel>
VLMK_DEVICE void scale_scores(const AttentionProblem& p, typename Kernel::Scores& scores,
                              typename Kernel::Scores& slopes) {
#pragma unroll
    for (int m = 0; m < Kernel::kRowBlocks; ++m)
#pragma unroll
        for (int n = 0; n < Kernel::kColumnBlocks; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float slope = 1.0f;
                scores[m][n].v[i] = scaled_score(p, scores[m][n].v[i], &slope);
                slopes[m][n].v[i] *= slope;
            }
}

// Writes rows of a gradient: through the tile whose rows the warp alone has used, as 16 bytes a thread.
template <class Kernel>
VLMK_DEVICE void write_rows(const typename Kernel::Gradient& gradient, float scale,
                            const typename Kernel::HeldTile& tile, int row, typename Kernel::T* to, int64_t stride,
                            int rows, int head_dim) {
    using T = typename Kernel::T;
    const int lane = lane_index();
#pragma unroll
    for (int m = 0; m < Kernel::kRowBlocks; ++m)
#pragma unroll
        for (int n = 0; n < Kernel::kHeadDim / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; i += 2)
                store_shared(tile.address(row + 16 * m + Accumulator<>::row(i), 8 * n + Accumulator<>::column(i)),
                             pack<T>(gradient[m][n].v[i] * scale, gradient[m][n].v[i + 1] * scale));
    __syncwarp();
    constexpr int kChunks = Kernel::kHeadDim / 8;
#pragma unroll 1
    for (int i = lane; i < 16 * Kernel::kRowBlocks * kChunks; i += kWarpLanes) {
        const int r = row + i / kChunks, column = i % kChunks * 8;
        if (r < rows && column < head_dim)
            *reinterpret_cast<uint4*>(to + r * stride + column) = load_shared<uint4>(tile.address(r, column));
    }
    __syncwarp();
}

template <class Kernel>
VLMK_DEVICE void backward(const AttentionProblem& p) {
    using T = typename Kernel::T;
    using StreamedTile = typename Kernel::StreamedTile;
    constexpr bool kKeys = Kernel::kHeld == Held::keys;
    constexpr int kM = Kernel::kRowBlocks, kN = Kernel::kColumnBlocks, kStreamed = Kernel::kTile.streamed;

    const HeldRows held = HeldRows::find<Kernel::kHeld>(p, Kernel::kHeldRows);
    const Sequence& s = held.sequence;
    const int held_length = kKeys ? s.seqlen_k : s.seqlen_q;
    if (held.first >= held_length) return;
    const Range rows{held.first, min(held.first + Kernel::kHeldRows, held_length)};
    const int head_dim = static_cast<int>(p.head_dim), depth = Kernel::depth(head_dim);
    const int group = static_cast<int>(p.heads_q / p.heads_k);

    extern __shared__ char shared[];
    const uint32_t base = shared_address(shared);
    const typename Kernel::HeldTile x1(base), x2(base + Kernel::HeldTile::kBytes);
    const uint32_t stages = base + (Kernel::kFirst ? 2 : 1) * Kernel::HeldTile::kBytes;

    const Side mine = kKeys ? key_side(p) : query_side(p), other = kKeys ? query_side(p) : key_side(p);
    const int first_held = kKeys ? s.first_k : s.first_q, first_streamed = kKeys ? s.first_q : s.first_k;
    const int held_head = kKeys ? held.key_head : held.head;
    {
        const RowCopy<typename Kernel::HeldTile, Kernel::kThreads> copy(head_dim);
        copy.start(x1, row_pointer<const T>(mine.first, s, first_held, held_head, rows.low), mine.first.row_stride,
                   rows.high - rows.low);
        if constexpr (Kernel::kFirst)
            copy.start(x2, row_pointer<const T>(mine.second, s, first_held, held_head, rows.low),
                       mine.second.row_stride, rows.high - rows.low);
    }

    // Streamed tiles are Y1 at `at`, Y2 behind it, and the statistics of queries.
    const RowCopy<StreamedTile, Kernel::kThreads> copy(head_dim);
    const auto start_tile = [&](const Walk& walk, uint32_t at) {
        const int count = walk.range.high - walk.first;
        copy.start(StreamedTile(at), row_pointer<const T>(other.first, s, first_streamed, walk.head, walk.first),
                   other.first.row_stride, count);
        copy.start(StreamedTile(at + StreamedTile::kBytes),
                   row_pointer<const T>(other.second, s, first_streamed, walk.head, walk.first),
                   other.second.row_stride, count);
        if constexpr (kKeys) {
            const int i = threadIdx.x;
            if (i < kStreamed)
                copy_async_or_zero<8>(at + 2 * StreamedTile::kBytes + i * 8,
                                      p.statistics + lse_index(p, s, walk.head, walk.first) + (i < count ? i : 0),
                                      i < count ? 8 : 0);
        }
    };

    // Tiles that no pair sees are left out.
    const auto queries_of = [&](const Walk& walk) {
        return kKeys ? Range{walk.first, min(walk.first + kStreamed, walk.range.high)} : rows;
    };
    const auto keys_of = [&](const Walk& walk) { return kKeys ? rows : Range{walk.first, walk.first + kStreamed}; };
    const auto skip_invisible = [&](Walk& walk) {
        if (p.visible.data == nullptr) return;
        while (!walk.ended()) {
            const Range keys = keys_of(walk);
            if (any_tile_visible(p, s, queries_of(walk), {keys.low, min(keys.high, s.seqlen_k)})) return;
            walk.advance(kStreamed);
        }
    };
    Walk walk;
    walk.range = kKeys ? Range{row_range(p, s, rows.low).low, row_range(p, s, rows.high - 1).high}
                       : Range{key_range(p, s, rows.low).low, key_range(p, s, rows.high - 1).high};
    walk.first = walk.range.low;
    walk.head = kKeys ? held.head : held.key_head;
    walk.last_head = walk.range.empty() ? -1 : kKeys ? held.head + group - 1 : held.key_head;
    skip_invisible(walk);

    const int lane = lane_index(), row = static_cast<int>(threadIdx.x) / kWarpLanes * 16 * kM;
    RowStatistics held_statistics[kM][2];  // of the queries held
    if constexpr (!kKeys) {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int at = min(rows.low + row + 16 * m + lane / 4 + 8 * i, rows.high - 1);
                held_statistics[m][i] = p.statistics[lse_index(p, s, held.head, at)];
            }
    }

    // A positive factor waits until the exponential if nothing is added to scores.
    const bool adds = p.mask.data != nullptr && p.mask.dtype != DType::boolean;
    const bool late = p.softcap == 0.0f && !adds && p.scale > 0.0f && p.scale < infinity();
    const float factor = late ? p.scale * kLog2E : 1.0f;
    const bool masks = masks_pairs(p);

    typename Kernel::Gradient first, second;
    if (!walk.ended()) start_tile(walk, stages);
    commit_copies();
    uint32_t at = stages, next_at = stages + Kernel::kStageBytes;
#pragma unroll 1
    while (!walk.ended()) {
        wait_copies<0>();
        __syncthreads();
        Walk next = walk;
        next.advance(kStreamed);
        skip_invisible(next);
        if (!next.ended()) start_tile(next, next_at);
        commit_copies();

        const StreamedTile y1(at), y2(at + StreamedTile::kBytes);
        const bool masked = masks || !all_in_range(p, s, queries_of(walk), keys_of(walk));
        const int streamed_rows = min(kStreamed, walk.range.high - walk.first);
#pragma unroll 1
        for (int chunk = 0; chunk < streamed_rows; chunk += Kernel::kTile.chunk) {
            typename Kernel::Scores scores, slopes;
            float lse[kN][2];
#pragma unroll
            for (int n = 0; n < kN; ++n) {
                if constexpr (kKeys) {
                    const float4 two = load_shared<float4>(at + 2 * StreamedTile::kBytes +
                                                           (chunk + 8 * n + Accumulator<>::column(0)) * 8);
                    lse[n][0] = two.x, lse[n][1] = two.z;
#pragma unroll
                    for (int m = 0; m < kM; ++m) slopes[m][n] = {{two.y, two.w, two.y, two.w}};
                } else {
#pragma unroll
                    for (int m = 0; m < kM; ++m) {
                        const float upper = held_statistics[m][0].minus_delta,
                                    lower = held_statistics[m][1].minus_delta;
                        slopes[m][n] = {{upper, upper, lower, lower}};
                    }
                }
            }
            add_product(scores, x1, row, y1, chunk, depth);
            if constexpr (Kernel::kFirst) add_product(slopes, x2, row, y2, chunk, depth);

            if (!late) scale_scores<Kernel>(p, scores, slopes);
            if (masked)
                add_masks<Kernel>(p, s, kKeys ? walk.head : held.head, rows.low + row, walk.first + chunk, scores);

            LeftFragment<T, 16> p_left[kM][kN / 2], ds_left[kM][kN / 2];
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int n = 0; n < kN; n += 2) {
#pragma unroll
                    for (int j = n; j < n + 2; ++j)
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            const float minus_lse = kKeys ? lse[j][i % 2] : held_statistics[m][i / 2].minus_lse;
                            float& probability = scores[m][j].v[i];
                            probability = exp2(fmaf(probability, factor, minus_lse));
                            slopes[m][j].v[i] *= probability;
                        }
                    if constexpr (Kernel::kSecond) p_left[m][n / 2] = as_left<T>(scores[m][n], scores[m][n + 1]);
                    if constexpr (Kernel::kFirst) ds_left[m][n / 2] = as_left<T>(slopes[m][n], slopes[m][n + 1]);
                }
            if constexpr (Kernel::kSecond) add_product(second, p_left, y2, chunk, depth);
            if constexpr (Kernel::kFirst) add_product(first, ds_left, y1, chunk, depth);
        }
        walk = next;
        const uint32_t used = at;
        at = next_at, next_at = used;
    }

    // The held tiles are complete, read, and free for the results.
    wait_copies<0>();
    __syncthreads();
    const int count = rows.high - rows.low;
    const auto write = [&](const typename Kernel::Gradient& gradient, float scale, const HeadTensor& to) {
        write_rows<Kernel>(gradient, scale, x1, row, row_pointer<T>(to, s, first_held, held_head, rows.low),
                           to.row_stride, count, head_dim);
    };
    if constexpr (Kernel::kFirst) write(first, p.scale, kKeys ? p.grad_key : p.grad_query);
    if constexpr (Kernel::kSecond) write(second, 1.0f, p.grad_value);
}

}  // namespace vlmk::gpu
