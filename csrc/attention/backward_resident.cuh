// Attention backward where one block owns all keys of a head and every query sees all of them. A warp has 32 keys, and
// what it computes serves all three gradients:
//
//     S^T = K Q^T,  P^T = 2^(S^T - lse),  dP^T = V dO^T,  dS^T = P^T (dP^T - delta),
//     dV += P^T dO,  dK += dS^T Q,        dQ = dS K       over tiles of queries.
//
// P^T and dS^T are left operands as they come out of the tensor cores. Only dS crosses warps, through shared memory; dQ
// of a tile is finished by the block and written once.
#pragma once
#include "attention/backward_rows.cuh"
#include "attention/backward_stream.cuh"
#include "attention/row_copy.cuh"
#include "attention/rows.cuh"
#include "gpu/exp2.cuh"
#include "gpu/tile_product.cuh"

namespace vlmk::gpu {

template <class T, int kHeadDim, int kKeys>
class ResidentBackward {
    static constexpr int kQueries = kResidentQueries, kChunk = 16, kM = 2, kN = kChunk / 8;
    static constexpr int kWarpKeys = 16 * kM, kThreads = kKeys / kWarpKeys * kWarpLanes;
    // dQ of a tile: a warp has 16 rows and some columns of it.
    static constexpr int kRowWarps = kQueries / 16, kColumns = kHeadDim / (kKeys / kWarpKeys / kRowWarps);

    using KeyTile = SharedTile<T, kKeys, kHeadDim>;
    using QueryTile = SharedTile<T, kQueries, kHeadDim>;
    using SlopeTile = SharedTile<T, kKeys, kQueries>;  // dS^T
    using Stream = RowStream<QueryTile, kThreads>;
    using Statistics = StatisticsCopy<kQueries, kThreads>;
    using Gradient = TileSum<kM, kHeadDim / 8>;

    static constexpr int kValueAt = KeyTile::kBytes, kSlopesAt = 2 * KeyTile::kBytes;
    static constexpr int kStagesAt = kSlopesAt + SlopeTile::kBytes, kStageBytes = Stream::kBytes + Statistics::kBytes;
    static_assert(kStagesAt + 2 * kStageBytes == resident_shared_bytes(kHeadDim, kKeys),
                  "the plan and the kernel agree on shared memory");

  public:
    VLMK_DEVICE explicit ResidentBackward(const BackwardLaunch& launch)
        : p_(launch.problem), all_statistics_(launch.statistics) {
        const AttentionProblem& p = p_;
        const int heads = static_cast<int>(p.heads_k), group = static_cast<int>(p.heads_q) / heads;
        key_head_ = static_cast<int>(blockIdx.x) % heads;
        first_head_ = key_head_ * group;
        end_head_ = first_head_ + group;
        s_ = find_sequence(p, static_cast<int>(blockIdx.x) / heads);
        warp_key_ = static_cast<int>(threadIdx.x) / kWarpLanes * kWarpKeys;
        extern __shared__ __align__(16) char shared[];
        base_ = shared_address(shared);
    }

    VLMK_DEVICE void run() const {
        copy_held(KeyTile(base_), p_.key);
        copy_held(KeyTile(base_ + kValueAt), p_.value);

        const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
        const int query_row = warp % kRowWarps * 16, column = warp / kRowWarps * kColumns;
        LeftRows<T, kM, kHeadDim / 8> key;
        Gradient grad_key, grad_value;
#pragma unroll 1
        for (int head = first_head_; head < end_head_; ++head) {
            int count = s_.seqlen_q;
            Stream stream(row_pointer<const T>(p_.query, s_, 0, head, 0), p_.query,
                          row_pointer<const T>(p_.grad_out, s_, 0, head, 0), p_.grad_out, kHeadDim);
            Statistics statistics(all_statistics_ + lse_index(p_, s_, head, 0));
            RowWriter<T> writer(row_pointer<T>(p_.grad_query, s_, 0, head, query_row) + column, p_.grad_query);
            uint32_t stage = base_ + kStagesAt, next_stage = stage + kStageBytes;
            start(stream, statistics, stage, count);
            commit_copies();
            wait_copies<0>();
            __syncthreads();
            if (head == first_head_) load_keys(key);
#pragma unroll 1
            for (; count > 0; count -= kQueries) {
                if (count > kQueries) {
                    stream.advance(kQueries);
                    statistics.advance(kQueries);
                    start(stream, statistics, next_stage, count - kQueries);
                }
                commit_copies();
                add_tile(stage, count, key, grad_key, grad_value);
                __syncthreads();
                write_queries(query_row, column, count, writer);
                writer.advance(kQueries);
                wait_copies<0>();
                __syncthreads();
                const uint32_t used = stage;
                stage = next_stage, next_stage = used;
            }
        }
        write(grad_key, p_.scale, p_.grad_key);
        write(grad_value, 1.0f, p_.grad_value);
    }

  private:
    VLMK_DEVICE void copy_held(const KeyTile& to, const HeadTensor& from) const {
        RowCopy<KeyTile, kThreads>::part(to, s_.seqlen_k, kKeys, kHeadDim,
                                         [&](int row) { return row_pointer<const T>(from, s_, 0, key_head_, row); });
    }

    VLMK_DEVICE void start(const Stream& stream, const Statistics& statistics, uint32_t stage, int count) const {
        stream.start(stage, count);
        statistics.start(stage + Stream::kBytes, all_statistics_, count);
    }

    // The warp's keys stay in registers.
    VLMK_DEVICE void load_keys(LeftRows<T, kM, kHeadDim / 8>& key) const {
        const TileView<KeyTile> rows(KeyTile(base_), warp_key_);
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int k = 0; k < kHeadDim / 16; ++k) key.a[m][k] = rows.down.left(16 * m, 16 * k);
    }

    // What a tile of queries adds to the gradients of the warp's keys; leaves dS^T in shared memory.
    VLMK_DEVICE void add_tile(uint32_t stage, int count, const LeftRows<T, kM, kHeadDim / 8>& key, Gradient& grad_key,
                              Gradient& grad_value) const {
        if (warp_key_ >= s_.seqlen_k) return;
        const TileView<KeyTile> value(KeyTile(base_ + kValueAt), warp_key_);
        const float factor = p_.scale * kLog2E;
        TileView<QueryTile> query{QueryTile(stage)};
        StatisticsView statistics(stage + Stream::kBytes);
        const uint32_t slopes_to =
            SlopeTile(base_ + kSlopesAt).address(warp_key_ + Accumulator<>::row(0), Accumulator<>::column(0));
        uint32_t slopes_at = slopes_to;
        const auto add_chunk = [&] {
            const TileView<QueryTile> grad_out = query + QueryTile::kBytes;
            TileSum<kM, kN> scores, slopes;
            float2 minus_lse[kN];
#pragma unroll
            for (int n = 0; n < kN; ++n) {
                minus_lse[n] = statistics.minus_lse(8 * n);
                slopes[0][n] = slopes[1][n] = statistics.minus_delta(8 * n);
            }
            add_product_transposed(scores, key, query);
            add_product_transposed(slopes, value, grad_out);
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int n = 0; n < kN; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        float& probability = scores[m][n].v[i];
                        probability = exp2(fmaf(probability, factor, i % 2 == 0 ? minus_lse[n].x : minus_lse[n].y));
                        slopes[m][n].v[i] *= probability;
                    }
            const LeftRows<T, kM, kN> p_left = as_left_rows<T>(scores), ds_left = as_left_rows<T>(slopes);
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    store_shared(slopes_at + SlopeTile::offset(16 * m + i % 2 * 8, i / 2 * 8), ds_left.a[m][0].r[i]);
            add_product(grad_value, p_left, grad_out);
            add_product(grad_key, ds_left, query);
            query = query + QueryTile::offset(kChunk, 0);
            statistics.advance(kChunk);
            slopes_at += SlopeTile::offset(0, kChunk);
        };
        int chunks = (min(count, kQueries) + kChunk - 1) / kChunk;
        // Two at a time: loads of one beside products of the other.
#pragma unroll 1
        for (; chunks > 1; chunks -= 2) {
            add_chunk();
            add_chunk();
        }
        if (chunks > 0) add_chunk();
        if (warp_key_ + kWarpKeys > s_.seqlen_k) clear_slopes(slopes_to);
    }

    // Makes the lane's part of dS 0 for keys past the end: what they leave there can be infinite, and would meet their
    // zeros in dQ.
    VLMK_DEVICE void clear_slopes(uint32_t at) const {
#pragma unroll
        for (int row = 0; row < kWarpKeys; row += 8)
            if (warp_key_ + row + Accumulator<>::row(0) >= s_.seqlen_k)
#pragma unroll 1
                for (int column = 0; column < kQueries; column += 8)
                    store_shared(at + SlopeTile::offset(row, column), 0);
    }

    // dQ of the warp's part of a tile: all keys meet there.
    VLMK_DEVICE void write_queries(int row, int column, int count, const RowWriter<T>& writer) const {
        if (row >= count) return;
        TileSum<1, kColumns / 8> gradient;
        const TileView<SlopeTile> ds(SlopeTile(base_ + kSlopesAt), 0, row);
        const TileView<KeyTile> keys(KeyTile(base_), 0, column);
#pragma unroll
        for (int key = 0; key < kKeys; key += kWarpKeys) {
            if (key >= s_.seqlen_k) break;
#pragma unroll
            for (int k = key; k < key + kWarpKeys; k += 16) {
                const LeftFragment<T, 16> a = ds.across.left(k, 0);
#pragma unroll
                for (int n = 0; n < kColumns / 8; n += 2) {
                    RightFragment<T, 16> b[2];
                    keys.down.right(k, 8 * n, b);
                    mma(gradient[0][n], a, b[0]);
                    mma(gradient[0][n + 1], a, b[1]);
                }
            }
        }
        writer.write(gradient, p_.scale, count - row);
    }

    VLMK_DEVICE void write(const Gradient& gradient, float scale, const HeadTensor& to) const {
        write_rows(gradient, scale, KeyTile(base_), warp_key_, row_pointer<T>(to, s_, 0, key_head_, 0), to.row_stride,
                   s_.seqlen_k, kHeadDim);
    }

    const AttentionProblem& p_;
    RowStatistics* const& all_statistics_;
    Sequence s_;
    int key_head_, first_head_, end_head_;  // the latter of queries
    int warp_key_;
    uint32_t base_;
};

}  // namespace vlmk::gpu
