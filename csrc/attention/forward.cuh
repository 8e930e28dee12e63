// Flash attention forward: a warp owns 16 or 32 query rows, the block goes through the keys,
//     S = Q K^T,  P = 2^(S - reference),  O += P V,  sum += rowsum(P),
// and in the end out = O / sum and lse = reference + log(sum). Any reference will do that lets nothing overflow and the
// largest P be seen. Two ways through a block of keys share everything:
//
//     fast     for blocks that all rows of the warp see entirely: the reference stays that of earlier keys. It is at
//              most the true maximum, so nothing is lost below; should sums grow too large, the block is done again by
//              the careful way, before P is used.
//     careful  16 keys at a time: masks, softcap, the ends of a sequence; raises the reference to the maximum.
//
// The first block of keys is the one that is not full, so that all others are. Keys and values are loaded one block
// ahead; a single barrier a block says that they have landed and that the stage they replace has been read.
#pragma once
#include "attention/forward_launch.h"
#include "attention/forward_products.cuh"
#include "attention/mask.cuh"
#include "attention/row_copy.cuh"
#include "attention/sight.cuh"
#include "gpu/reduce.cuh"

namespace vlmk::gpu {

// The largest sum of P over a lane's part of a block that the fast way takes: fp16 ends at 2^16, and O must not
// overflow where V is large.
template <class T>
constexpr float kLargestSum = 16384.0f;  // 2^14
template <>
constexpr float kLargestSum<bf16> = 1073741824.0f;  // 2^30
template <>
constexpr float kLargestSum<float> = 1073741824.0f;

template <class T, int kIndex>
class Forward {
    using Shape = ForwardShape<T, kIndex>;
    static constexpr ForwardTile kTile = Shape::kTile;
    static constexpr int kDim = Shape::kDim, kKeys = Shape::kKeys, kRowTiles = Shape::kRowTiles;
    static constexpr int kRows = 2 * kRowTiles;  // rows a lane has a part of: 8 apart

    using Tile = typename Shape::Tile;
    using QueryTile = typename Shape::QueryTile;
    using Copy = RowCopy<Tile, kTile.threads()>;
    using QueryCopy = RowCopy<QueryTile, kTile.threads()>;

  public:
    VLMK_DEVICE explicit Forward(const ForwardLaunch& launch)
        : launch_(launch),
          p_(launch.problem),
          warp_row_(static_cast<int>(threadIdx.x) / kWarpLanes * kTile.warp_rows()),
          products_(tile_at(kStageBytes), tile_at(kStageBytes + Tile::kBytes), queries(), warp_row_, p_.head_dim),
          copy_(tile_at(0)) {
        const int row_block = find_work();
        first_row_ = row_block * launch.block_rows;
        rows_ = min(launch.block_rows, launch.heads_together * s_.seqlen_q - first_row_);
    }

    VLMK_DEVICE void run() {
        if (rows_ <= 0) return;
        plan_keys();
        for (int i = 0; i < kRows; ++i) minus_reference_[i] = infinity(), sum_[i] = 0.0f;
        int tile = searches_ ? find_visible(0) : 0;
        start_loads(tile);

        while (tile < tiles_) {
            if (searches_) look_ahead(tile);
            bool given_up = false;
            if (tile >= fast_begin_) {
                int left = fast_end_ - tile;
                for (; left > 0; --left) {
                    advance();
                    given_up = !fast_step<kKeys / 8>(0);
                    if (given_up) break;
                }
                tile = max(tile, fast_end_ - left);
            }
            if (!given_up && !(searches_ && fast_end_ > 0)) {
                if (tile >= tiles_) break;
                if (whole_block())
                    advance();
                else
                    advance_slowly(searches_ ? next_ : tile + 1);
                given_up = true;
            }
            if (given_up) careful_step(tile++);
            if (searches_) tile = next_;
        }
        finish();
    }

  private:
    VLMK_DEVICE static char* dynamic_shared() {
        extern __shared__ __align__(16) char memory[];
        return memory;
    }

    // --- what to do ---

    // Short problems have blocks of fewer threads, which have no fast way through whole blocks of keys.
    VLMK_DEVICE static bool whole_block() { return blockDim.x == kTile.threads(); }

    // Sets sequence and head, and returns the number of the block of rows. Blocks of one head are neighbours: they
    // share its keys in the cache.
    VLMK_DEVICE int find_work() {
        const uint32_t row_blocks = static_cast<uint32_t>(launch_.row_blocks);
        // Causal rows further down see more; they start first.
        const int counted = static_cast<int>(blockIdx.x % row_blocks);
        const int number = p_.causal == Causal::none ? counted : launch_.row_blocks - 1 - counted;
        int others = static_cast<int>(blockIdx.x / row_blocks);
        split_ = others % launch_.splits;
        others /= launch_.splits;
        const int head_blocks = static_cast<int>(p_.heads_q) / launch_.heads_together;
        head_ = others % head_blocks * launch_.heads_together;
        key_head_ = head_ / static_cast<int>(p_.heads_q / p_.heads_k);
        if (p_.cu_seqlens_q == nullptr) {
            s_ = find_sequence(p_, others / head_blocks);
            return number;
        }
        const PackedBlock packed =
            find_packed_block(p_.cu_seqlens_q, p_.batch, p_.seqlen_q, launch_.block_rows, number);
        s_ = find_sequence(p_, packed.sequence);
        return packed.block;
    }

    // Head and position of a row of the block; rows past the last are like it.
    VLMK_DEVICE Place place(int row) const {
        row = first_row_ + min(row, rows_ - 1);
        if (launch_.heads_together == 1) return {head_, row};
        return {head_ + row / s_.seqlen_q, row % s_.seqlen_q};
    }

    // The keys that some row, and those that every row of [begin, end) sees by causality and window.
    struct Reach {
        Range some, every;
    };
    VLMK_DEVICE Reach reach(int begin, int end) const {
        const Place first = place(begin), last = place(end - 1);
        const bool one_head = first.head == last.head;
        const Range low = key_range(p_, s_, one_head ? first.position : 0);
        const Range high = key_range(p_, s_, one_head ? last.position : s_.seqlen_q - 1);
        return {{low.low, high.high}, {high.low, low.high}};
    }

    VLMK_DEVICE Reach warp_reach() const { return reach(warp_row_, warp_row_ + kTile.warp_rows()); }

    VLMK_DEVICE void plan_keys() {
        Range block = reach(0, rows_).some;
        if (launch_.splits > 1) {  // whole blocks of keys, but for the last one
            const int part = (block.high - block.low + launch_.splits * kKeys - 1) / (launch_.splits * kKeys) * kKeys;
            block.low += split_ * part;
            block.high = min(block.high, block.low + part);
        }
        const int count = max(0, block.high - block.low);
        tiles_ = (count + kKeys - 1) / kKeys;
        first_keys_ = count - (tiles_ - 1) * kKeys;
        first_key_ = block.low;

        active_ = warp_row_ < rows_;
        const Reach warp = warp_reach();
        plain_ = p_.softcap == 0.0f;
        const int origin = key_of(0);  // where the first block would start if it were full
        reach_begin_ = max(1, (max(warp.every.low - origin, 0) + kKeys - 1) / kKeys);
        reach_end_ = active_ && plain_ ? min(tiles_, max(warp.every.high - origin, 0) / kKeys) : 0;
        fast_begin_ = reach_begin_, fast_end_ = whole_block() ? reach_end_ : 0;
        loads_left_ = tiles_ - 1;
        padding_ = any_padding();
        searches_ = p_.mask.data != nullptr || p_.visible.data != nullptr ||
                    (p_.query_padding.data != nullptr && __syncthreads_or(padding_));
    }

    // Whether a row of the warp does not see padding keys.
    VLMK_DEVICE bool any_padding() const {
        if (p_.query_padding.data == nullptr) return false;
        const int position = place(warp_row_ + lane_index() % kTile.warp_rows()).position;
        return __any_sync(
            kWholeWarp,
            p_.query_padding.data[s_.index * p_.query_padding.batch_stride + position * p_.query_padding.row_stride]);
    }

    VLMK_DEVICE int first_key(int tile) const { return tile == 0 ? first_key_ : key_of(tile); }
    VLMK_DEVICE int key_count(int tile) const { return tile == 0 ? first_keys_ : kKeys; }

    // The first key of a block behind the first one.
    VLMK_DEVICE int key_of(int tile) const { return first_key_ + first_keys_ + (tile - 1) * kKeys; }

    // --- mask tensors: only blocks of keys that a row of the block sees are loaded ---

    VLMK_DEVICE Sight look_at(int key, int count) const {
        Sight sight = look(p_, s_, key, count, kTile.warp_rows(), [&](int row) { return place(warp_row_ + row); });
        if (padding_) sight.every = sight.every && free_of_padding(p_, s_, key, count);
        return sight;
    }

    // The next block of keys from `tile` on that is seen, or tiles_; sight_ is then the warp's of it.
    VLMK_DEVICE int find_visible(int tile) {
        for (; tile < tiles_; ++tile) {
            sight_ = active_ ? look_at(first_key(tile), key_count(tile)) : Sight{false, false};
            if (__syncthreads_or(sight_.some)) break;
        }
        return tile;
    }

    // Finds the block after `tile`, and whether `tile` can go the fast way.
    VLMK_DEVICE void look_ahead(int tile) {
        sees_some_ = sight_.some;
        plain_ = sight_.every && reach_end_ > 0;
        const bool fast = plain_ && reach_begin_ <= tile && tile < reach_end_;
        next_ = find_visible(tile + 1);
        loads_left_ = next_ < tiles_ ? 1 : 0;
        if (next_ < tiles_) point_at(next_);
        fast_begin_ = tile;
        fast_end_ = fast && whole_block() ? tile + 1 : 0;
    }

    // --- loads ---

    // Two stages of a tile of keys and one of values behind it.
    VLMK_DEVICE static Tile tile_at(int offset) { return Tile(shared_address(dynamic_shared()) + offset); }
    VLMK_DEVICE static QueryTile queries() {
        return QueryTile(shared_address(dynamic_shared()) + kTile.query_offset());
    }

    VLMK_DEVICE const T* rows_of(const HeadTensor& t, int key) const {
        return row_pointer<const T>(t, s_, s_.first_k, key_head_, key);
    }

    // Queries, and the first block of keys and values.
    VLMK_DEVICE void start_loads(int tile) {
        const int columns = static_cast<int>(p_.head_dim);
        const int filled = (rows_ + kTile.warp_rows() - 1) / kTile.warp_rows() * kTile.warp_rows();
        QueryCopy::part(queries(), rows_, filled, columns, [&](int row) {
            const Place at = place(row);
            return row_pointer<const T>(p_.query, s_, s_.first_q, at.head, at.position);
        });
        commit_copies();
        if (tile < tiles_) {
            load_block(tile, 0);
            point_at(tile + 1);
        }
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        if (active_) products_.load_query();
    }

    // Loads go on from a block of keys.
    VLMK_DEVICE void point_at(int tile) {
        const int columns = static_cast<int>(p_.head_dim);
        key_from_ = Copy::start(rows_of(p_.key, key_of(tile)), p_.key.row_stride, columns);
        value_from_ = Copy::start(rows_of(p_.value, key_of(tile)), p_.value.row_stride, columns);
    }

    // Any block of keys, by any number of threads.
    VLMK_DEVICE void load_block(int tile, int stage) const {
        const int first = first_key(tile), count = key_count(tile), filled = (count + 15) / 16 * 16;
        const int columns = static_cast<int>(p_.head_dim);
        Copy::part(tile_at(stage), count, filled, columns, [&](int row) { return rows_of(p_.key, first + row); });
        Copy::part(tile_at(stage + Tile::kBytes), count, filled, columns,
                   [&](int row) { return rows_of(p_.value, first + row); });
    }

    // Waits for a block of keys, which everybody then has in the stage after the last one.
    VLMK_DEVICE void await_block() {
        wait_copies<0>();
        __syncthreads();
        const int to_next_stage = products_.are_before(tile_at(kStageBytes)) ? kStageBytes : -kStageBytes;
        products_.move(to_next_stage);
        copy_.move(-to_next_stage);
    }

    // Waits for a block of keys, and starts the loads of the next.
    VLMK_DEVICE void advance() {
        await_block();
        if (--loads_left_ >= 0) {
            const int columns = static_cast<int>(p_.head_dim);
            copy_.template full<kTile.exact()>(0, key_from_, launch_.key_stride, columns);
            copy_.template full<kTile.exact()>(Tile::kBytes, value_from_, launch_.value_stride, columns);
            key_from_ += int64_t{kKeys} * launch_.key_stride;
            value_from_ += int64_t{kKeys} * launch_.value_stride;
        }
        commit_copies();
    }

    // The same in a block of fewer threads.
    VLMK_DEVICE void advance_slowly(int next) {
        await_block();
        if (next < tiles_) load_block(next, products_.are_before(tile_at(kStageBytes)) ? kStageBytes : 0);
        commit_copies();
    }

    // --- the two ways ---

    // Keys of a tile from a row on, all seen by all rows. False, and nothing changed, if the reference is too low.
    template <int kBlocks>
    VLMK_DEVICE bool fast_step(int first) {
        Accumulator<> s[kRowTiles][kBlocks];
        products_.multiply_keys(s, first);
        float sum[kRows] = {};
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
            for (int n = 0; n < kBlocks; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = 2 * m + i / 2;
                    s[m][n].v[i] = exp2(fmaf(s[m][n].v[i], launch_.factor, minus_reference_[row]));
                    sum[row] += s[m][n].v[i];
                }
        float total = sum[0];
#pragma unroll
        for (int i = 1; i < kRows; ++i) total += sum[i];
        if (__any_sync(kWholeWarp, !(total < kLargestSum<T>))) return false;  // also for NaN
#pragma unroll
        for (int i = 0; i < kRows; ++i) sum_[i] += sum[i];
        products_.add_values(out_, s, first);
        return true;
    }

    // From the last keys on: where the block is not full, they are the ones that need care.
    VLMK_DEVICE void careful_step(int tile) {
        if (!active_ || !sees_some_) return;
        const int begin = first_key(tile), end = begin + key_count(tile);
        const Reach warp = warp_reach();
#pragma unroll 1
        for (int row = (end - begin - 1) / 16 * 16; row >= 0; row -= 16) {
            const int key = begin + row;
            if (key + 16 <= warp.some.low || warp.some.high <= key) continue;
            const bool whole = plain_ && warp.every.low <= key && key + 16 <= min(warp.every.high, end);
            if (whole && referenced_ && fast_step<2>(row)) continue;

            Accumulator<> s[kRowTiles][2];
            products_.multiply_keys(s, row);
            if (plain_ && warp.every.low <= key && min(key + 16, end) <= warp.every.high)
                trim_scores(s, end - key);
            else
                mask_scores(s, key, end);
            raise_references(s);
            referenced_ = true;
#pragma unroll
            for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
                for (int n = 0; n < 2; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int r = 2 * m + i / 2;
                        s[m][n].v[i] = exp2(s[m][n].v[i] + guarded(minus_reference_[r]));
                        sum_[r] += s[m][n].v[i];
                    }
            products_.add_values(out_, s, row);
        }
    }

    // A row that has seen nothing keeps the reference -inf; subtracting 0 instead makes its P 2^-inf = 0.
    VLMK_DEVICE static float guarded(float minus_reference) {
        return minus_reference == infinity() ? 0.0f : minus_reference;
    }

    // Products -> scores of `count` keys that all rows see, -inf behind them.
    VLMK_DEVICE void trim_scores(Accumulator<> (&s)[kRowTiles][2], int count) const {
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool seen = 8 * n + lane_index() % 4 * 2 + i % 2 < count;
#pragma unroll
                for (int m = 0; m < kRowTiles; ++m) s[m][n].v[i] = seen ? s[m][n].v[i] * launch_.factor : -infinity();
            }
    }

    // Products -> scores, -inf where a row does not see a key or from `end` on.
    VLMK_DEVICE void mask_scores(Accumulator<> (&s)[kRowTiles][2], int first_key, int end) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const Place at = place(warp_row_ + 8 * r + lane_index() / 4);
            Range seen = key_range(p_, s_, at.position);
            seen.high = min(seen.high, end);
            const RowMask mask(p_, s_, at.head, at.position);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& score = s[r / 2][i / 2].v[r % 2 * 2 + i % 2];
                const int key = first_key + i / 2 * 8 + lane_index() % 4 * 2 + i % 2;
                score = seen.holds(key) ? mask.apply(key, scaled_score(p_, score)) : -infinity();
            }
        }
    }

    // References become at least the largest score; O and the sums follow.
    VLMK_DEVICE void raise_references(const Accumulator<> (&s)[kRowTiles][2]) {
        float rescale[kRows];
        bool raised = false;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            float largest = -minus_reference_[r];
#pragma unroll
            for (int i = 0; i < 4; ++i) largest = fmaxf(largest, s[r / 2][i / 2].v[r % 2 * 2 + i % 2]);
            largest = reduce_max<4>(largest);
            rescale[r] = exp2(guarded(-largest) - minus_reference_[r]);
            raised = raised || largest > -minus_reference_[r];
            minus_reference_[r] = -largest;
        }
        if (!referenced_ || !__any_sync(kWholeWarp, raised)) return;  // there is nothing yet, or nothing new
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            sum_[r] *= rescale[r];
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) {
                out_[r / 2][c].v[r % 2 * 2] *= rescale[r];
                out_[r / 2][c].v[r % 2 * 2 + 1] *= rescale[r];
            }
        }
    }

    // --- results ---

    VLMK_DEVICE void finish() {
        wait_copies<0>();
        __syncthreads();
        if (!active_) return;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float sum = reduce_add<4>(sum_[r]);
            const float normalise = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) {
                out_[r / 2][c].v[r % 2 * 2] *= normalise;
                out_[r / 2][c].v[r % 2 * 2 + 1] *= normalise;
            }
            sum_[r] = logf(sum) - minus_reference_[r] * kLn2;  // the logsumexp
        }
        if (launch_.splits > 1)
            store_part();
        else
            store_rows();
    }

    // A row's place in the logsumexps and in the workspace.
    VLMK_DEVICE int64_t row_number(int row) const {
        const Place at = place(row);
        return lse_index(p_, s_, at.head, at.position);
    }

    VLMK_DEVICE void store_part() const {
        const int64_t rows = partial_rows(p_), head_dim = p_.head_dim;
        float* const lses = p_.workspace + launch_.splits * rows * head_dim;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const int row = warp_row_ + 8 * r + lane_index() / 4;
            if (row >= rows_) continue;
            const int64_t at = split_ * rows + row_number(row);
            if (lane_index() % 4 == 0) lses[at] = sum_[r];
            float* const to = p_.workspace + at * head_dim + lane_index() % 4 * 2;
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) {
                const float* o = out_[r / 2][c].v + r % 2 * 2;
                if (8 * c < head_dim) *reinterpret_cast<float2*>(to + 8 * c) = make_float2(o[0], o[1]);
            }
        }
    }

    // Through the shared memory of the queries, whose rows nobody else reads or writes any more, so that rows leave in
    // whole.
    VLMK_DEVICE void store_rows() const {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const int row = warp_row_ + 8 * r + lane_index() / 4;
            if (p_.lse != nullptr && lane_index() % 4 == 0 && row < rows_) p_.lse[row_number(row)] = sum_[r];
#pragma unroll
            for (int c = 0; c < kDim / 8; ++c) {
                const float* o = out_[r / 2][c].v + r % 2 * 2;
                if (products_.exists(8 * c))
                    store_pair<T>(queries().address(row, 8 * c + lane_index() % 4 * 2), o[0], o[1]);
            }
        }
        __syncwarp();
        const int chunks = (kTile.exact() ? kDim : static_cast<int>(p_.head_dim)) / QueryTile::kChunk;
        const int count = min(kTile.warp_rows(), rows_ - warp_row_) * chunks;
#pragma unroll 1
        for (int i = lane_index(); i < count; i += kWarpLanes) {
            const int row = warp_row_ + i / chunks, column = i % chunks * QueryTile::kChunk;
            const Place at = place(row);
            T* to = row_pointer<T>(p_.out, s_, s_.first_q, at.head, at.position) + column;
            *reinterpret_cast<uint4*>(to) = load_shared<uint4>(queries().address(row, column));
        }
    }

    static constexpr int kStageBytes = 2 * Tile::kBytes;

    const ForwardLaunch& launch_;
    const AttentionProblem& p_;
    const int warp_row_;  // counted from first_row_
    ForwardProducts<Shape> products_;
    Copy copy_;
    int first_row_, rows_;
    Sequence s_;
    int head_, key_head_, split_;
    bool active_;
    int first_key_, first_keys_, tiles_;
    int reach_begin_, reach_end_;  // blocks of keys that causality and window leave to all rows of the warp
    int fast_begin_, fast_end_;    // blocks of keys for the fast way, as far as is known
    int loads_left_;               // blocks of keys that are to be loaded, as far as is known
    int next_;                     // block of keys that is seen
    bool padding_;                 // a row of the warp does not see padding keys
    bool searches_, sees_some_ = true;
    bool plain_;               // nothing but causality and window hides keys from the warp
    bool referenced_ = false;  // some keys are in O, the sums and the references
    Sight sight_;

    const char *key_from_ = nullptr, *value_from_ = nullptr;

    Accumulator<> out_[kRowTiles][kDim / 8];
    float minus_reference_[kRows], sum_[kRows];
};

}  // namespace vlmk::gpu

// Kernels are named attention_forward_<dtype>_<head_dim of the tile>[_padded]; plan_forward.cpp makes the same names.
#define VLMK_FORWARD_KERNEL(dtype, T, index, name)                                               \
    extern "C" __global__ void __launch_bounds__(vlmk::ForwardTiles<T>::kTiles[index].threads()) \
        attention_forward_##dtype##_##name(const __grid_constant__ vlmk::ForwardLaunch launch) { \
        vlmk::gpu::Forward<T, index>(launch).run();                                              \
    }
