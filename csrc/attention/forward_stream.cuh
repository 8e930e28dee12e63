// Flash attention forward of any problem: a warp owns 16 or 32 query rows, and the block goes through the keys.
//
// The first block of keys is the one that is not full, so that all others are. Keys and values are loaded one block
// ahead; a single barrier a block says that they have landed and that the stage they replace has been read.
#pragma once
#include "attention/forward_results.cuh"
#include "attention/row_copy.cuh"

namespace vlmk::gpu {

template <class T, int kIndex>
class ForwardStream {
    using Shape = ForwardShape<T, kIndex>;
    static constexpr ForwardTile kTile = Shape::kTile;
    static constexpr int kKeys = Shape::kKeys;

    using Tile = typename Shape::Tile;
    using QueryTile = typename Shape::QueryTile;
    using Copy = RowCopy<Tile, kTile.threads()>;
    using QueryCopy = RowCopy<QueryTile, kTile.threads()>;

  public:
    VLMK_DEVICE explicit ForwardStream(const ForwardLaunch& launch)
        : launch_(launch),
          p_(launch.problem),
          warp_row_(warp_place(static_cast<int>(blockDim.x) / kWarpLanes) * kTile.warp_rows()),
          warp_(launch, tile_at(kStageBytes), tile_at(kStageBytes + Tile::kBytes)),
          copy_(tile_at(0)) {}

    VLMK_DEVICE void run() {
        if (block().rows <= 0) return;
        plan_keys();
        warp_.start(warp_row_);
        int tile = searches_ ? find_visible(0) : 0;
        start_loads(tile);

        while (tile < tiles_) {
            if (searches_) look_ahead(tile);
            bool given_up = false;
            if (tile >= fast_begin_) {
                int left = fast_end_ - tile;
                for (; left > 0; --left) {
                    advance();
                    given_up = !warp_.template fast_step<kKeys / 8>(0);
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

    VLMK_DEVICE const ForwardBlock& block() const { return warp_.block; }

    // Short problems have blocks of fewer threads, which have no fast way through whole blocks of keys.
    VLMK_DEVICE static bool whole_block() { return blockDim.x == kTile.threads(); }

    VLMK_DEVICE Reach warp_reach() const { return block().reach(warp_row_, warp_row_ + kTile.warp_rows()); }

    VLMK_DEVICE void plan_keys() {
        Range seen = block().reach(0, block().rows).some;
        if (launch_.splits > 1) {  // whole blocks of keys, but for the last one
            const int part = (seen.high - seen.low + launch_.splits * kKeys - 1) / (launch_.splits * kKeys) * kKeys;
            seen.low += block().split * part;
            seen.high = min(seen.high, seen.low + part);
        }
        const int count = max(0, seen.high - seen.low);
        tiles_ = (count + kKeys - 1) / kKeys;
        first_keys_ = count - (tiles_ - 1) * kKeys;
        first_key_ = seen.low;

        active_ = warp_row_ < block().rows;
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
        const int position = block().place(warp_row_ + lane_index() % kTile.warp_rows()).position;
        return __any_sync(kWholeWarp, p_.query_padding.data[block().s.index * p_.query_padding.batch_stride +
                                                            position * p_.query_padding.row_stride]);
    }

    VLMK_DEVICE int first_key(int tile) const { return tile == 0 ? first_key_ : key_of(tile); }
    VLMK_DEVICE int key_count(int tile) const { return tile == 0 ? first_keys_ : kKeys; }

    // The first key of a block behind the first one.
    VLMK_DEVICE int key_of(int tile) const { return first_key_ + first_keys_ + (tile - 1) * kKeys; }

    // --- mask tensors: only blocks of keys that a row of the block sees are loaded ---

    VLMK_DEVICE Sight look_at(int key, int count) const {
        Sight sight =
            look(p_, block().s, key, count, kTile.warp_rows(), [&](int row) { return block().place(warp_row_ + row); });
        if (padding_) sight.every = sight.every && free_of_padding(p_, block().s, key, count);
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

    VLMK_DEVICE void careful_step(int tile) {
        if (!active_ || !sees_some_) return;
        const int begin = first_key(tile);
        warp_.careful_step({begin, begin + key_count(tile), 0}, plain_, warp_reach());
    }

    // --- loads ---

    // Two stages of a tile of keys and one of values behind it.
    VLMK_DEVICE static Tile tile_at(int offset) { return Tile(shared_address(dynamic_shared()) + offset); }
    VLMK_DEVICE static QueryTile queries() {
        return QueryTile(shared_address(dynamic_shared()) + kTile.query_offset());
    }

    // Queries, and the first block of keys and values.
    VLMK_DEVICE void start_loads(int tile) {
        const int columns = static_cast<int>(p_.head_dim);
        const int filled = (block().rows + kTile.warp_rows() - 1) / kTile.warp_rows() * kTile.warp_rows();
        QueryCopy::part(queries(), block().rows, filled, columns,
                        [&](int row) { return block().template query<T>(row); });
        commit_copies();
        if (tile < tiles_) {
            load_block(tile, 0);
            point_at(tile + 1);
        }
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        if (active_) warp_.products.load_query(queries(), warp_row_);
    }

    // Loads go on from a block of keys.
    VLMK_DEVICE void point_at(int tile) {
        const int columns = static_cast<int>(p_.head_dim), key = key_of(tile);
        key_from_ = Copy::start(block().template key_row<T>(p_.key, key), p_.key.row_stride, columns);
        value_from_ = Copy::start(block().template key_row<T>(p_.value, key), p_.value.row_stride, columns);
    }

    // Any block of keys, by any number of threads.
    VLMK_DEVICE void load_block(int tile, int stage) const {
        const int first = first_key(tile), count = key_count(tile), filled = (count + 15) / 16 * 16;
        const int columns = static_cast<int>(p_.head_dim);
        Copy::part(tile_at(stage), count, filled, columns,
                   [&](int row) { return block().template key_row<T>(p_.key, first + row); });
        Copy::part(tile_at(stage + Tile::kBytes), count, filled, columns,
                   [&](int row) { return block().template key_row<T>(p_.value, first + row); });
    }

    // Waits for a block of keys, which everybody then has in the stage after the last one.
    VLMK_DEVICE void await_block() {
        wait_copies<0>();
        __syncthreads();
        const int to_next_stage = in_first_stage() ? kStageBytes : -kStageBytes;
        warp_.products.move(to_next_stage);
        copy_.move(-to_next_stage);
    }
    VLMK_DEVICE bool in_first_stage() const { return warp_.products.are_before(tile_at(kStageBytes)); }

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
        if (next < tiles_) load_block(next, in_first_stage() ? kStageBytes : 0);
        commit_copies();
    }

    VLMK_DEVICE void finish() {
        wait_copies<0>();
        __syncthreads();
        if (!active_) return;
        warp_.normalise();
        if (launch_.splits > 1) return store_part(warp_, warp_row_);
        store_lse(warp_, warp_row_);
        store_rows(warp_, warp_row_, queries());
    }

    static constexpr int kStageBytes = 2 * Tile::kBytes;

    const ForwardLaunch& launch_;
    const AttentionProblem& p_;
    const int warp_row_;
    ForwardWarp<Shape> warp_;
    Copy copy_;
    bool active_;
    int first_key_, first_keys_, tiles_;
    int reach_begin_, reach_end_;  // blocks of keys that causality and window leave to all rows of the warp
    int fast_begin_, fast_end_;    // blocks of keys for the fast way, as far as is known
    int loads_left_;               // blocks of keys that are to be loaded, as far as is known
    int next_;                     // block of keys that is seen
    bool padding_;                 // a row of the warp does not see padding keys
    bool searches_, sees_some_ = true;
    bool plain_;  // nothing but causality and window hides keys from the warp
    Sight sight_;

    const char *key_from_ = nullptr, *value_from_ = nullptr;
};

}  // namespace vlmk::gpu
