// Flash attention forward of short problems without masks: all keys and values of a head lie in shared memory, loaded
// once, and each warp goes through them for one tile of query rows after the other, of all heads of the group. Warps
// wait for each other only during their first tile, for the keys that still come in; from then on there is no barrier
// and no load but that of the next queries.
//
// The first block of keys is the one that is not full, so that all others are: it lies at the end of a full one.
#pragma once
#include "attention/forward_results.cuh"
#include "attention/row_copy.cuh"
#include "attention/row_parts.cuh"

namespace vlmk::gpu {

template <class T, int kIndex>
class ForwardResident {
    using Shape = ForwardShape<T, kIndex, true>;
    static constexpr ForwardTile kTile = Shape::kTile;
    static constexpr int kKeys = Shape::kKeys;

    using Tile = typename Shape::Tile;
    using Rows = RowParts<T, Shape::kDim>;
    using Part = typename Rows::Tile;
    static_assert(kTile.resident() && kTile.part_bytes() == Part::kBytes, "plan and kernel agree");
    using Copy = RowCopy<Tile, kTile.threads()>;

  public:
    VLMK_DEVICE explicit ForwardResident(const ForwardLaunch& launch)
        : launch_(launch),
          p_(launch.problem),
          blocks_((static_cast<int>(p_.seqlen_k) + kKeys - 1) / kKeys),
          first_keys_(static_cast<int>(p_.seqlen_k) - (blocks_ - 1) * kKeys),
          first_row_(kKeys - (first_keys_ + 15) / 16 * 16),
          keys_(shared_address(dynamic_shared()) - Tile::offset(first_row_, 0)),
          part_(shared_address(dynamic_shared()) + 2 * launch.value_distance +
                static_cast<int>(threadIdx.x) / kWarpLanes * Part::kBytes),
          warp_(launch, keys_, Tile(keys_.address(0, 0) + launch.value_distance)) {}

    VLMK_DEVICE void run() {
        start_loads();
        bool landed = false;
        int row = warp_place(kTile.warps) * kTile.warp_rows();
        if (row >= block().rows) {  // for the others' barriers
            for (int i = 0; i < blocks_; ++i) await_block();
        }
        for (; row < block().rows; row += kTile.rows()) {
            start_rows(row);
            go_through_keys(landed);
            landed = true;
            store(row);
            warp_.products.move(-(blocks_ - 1) * Tile::kBytes);
        }
    }

  private:
    VLMK_DEVICE static char* dynamic_shared() {
        extern __shared__ __align__(16) char memory[];
        return memory;
    }

    VLMK_DEVICE const ForwardBlock& block() const { return warp_.block; }

    // The first block, and those for which references are too low, take the careful way.
    VLMK_DEVICE void go_through_keys(bool landed) {
        if (!landed) await_block();
        for (int left = blocks_; left > 0;) {
            careful_step(blocks_ - left);
            while (--left > 0) {
                warp_.products.move(Tile::kBytes);
                if (!landed) await_block();
                if (!warp_.template fast_step<kKeys / 8>(0)) break;
            }
        }
    }

    VLMK_DEVICE void careful_step(int block) {
        const int end = first_keys_ + block * kKeys;
        const Range all{0, static_cast<int>(p_.seqlen_k)};
        const KeyRows keys = block == 0 ? KeyRows{0, end, first_row_} : KeyRows{end - kKeys, end, 0};
        warp_.careful_step(keys, true, {all, all});
    }

    // A group of copies for each block of keys, and empty ones up to a number that is known when compiling.
    VLMK_DEVICE void start_loads() const {
        const int columns = Shape::kDim, distance = launch_.value_distance;
        const auto load_first = [&](const HeadTensor& t, const Tile& to) {
            Copy::part(to, first_keys_, kKeys - first_row_, columns,
                       [&](int row) { return block().template key_row<T>(t, row); });
        };
        load_first(p_.key, Tile(keys_.address(first_row_, 0)));
        load_first(p_.value, Tile(keys_.address(first_row_, 0) + distance));
        commit_copies();
        const Copy copy(keys_);
        const char* key_from =
            Copy::start(block().template key_row<T>(p_.key, first_keys_), p_.key.row_stride, columns);
        const char* value_from =
            Copy::start(block().template key_row<T>(p_.value, first_keys_), p_.value.row_stride, columns);
#pragma unroll 1
        for (int i = 1; i < kMostResidentBlocks; ++i) {
            if (i < blocks_) {
                copy.template full<true>(i * Tile::kBytes, key_from, launch_.key_stride, columns);
                copy.template full<true>(i * Tile::kBytes + distance, value_from, launch_.value_stride, columns);
                key_from += int64_t{kKeys} * launch_.key_stride;
                value_from += int64_t{kKeys} * launch_.value_stride;
            }
            commit_copies();
        }
    }

    // Until the next block of keys is there. The group that this adds keeps the number of those behind it.
    VLMK_DEVICE static void await_block() {
        wait_copies<kMostResidentBlocks - 1>();
        commit_copies();
        __syncthreads();
    }

    // --- query rows, a row tile by parts through the warp's own place in shared memory ---

    VLMK_DEVICE void start_rows(int first_row) {
        using Rows = RowParts<const T, Shape::kDim>;
        typename Rows::Chunks chunks[Shape::kRowTiles];
#pragma unroll
        for (int m = 0; m < Shape::kRowTiles; ++m)
            Rows([&](int row) { return block().template query<T>(first_row + 16 * m + row); }).load(chunks[m]);
#pragma unroll
        for (int m = 0; m < Shape::kRowTiles; ++m)
#pragma unroll
            for (int part = 0; part < Rows::kParts; ++part) {
                Rows::put(part, part_, chunks[m]);
                __syncwarp();
                warp_.products.load_query_part(m, part, part_);
                __syncwarp();
            }
        warp_.start(first_row);
    }

    VLMK_DEVICE void store(int first_row) {
        warp_.normalise();
        store_lse(warp_, first_row);
#pragma unroll
        for (int m = 0; m < Shape::kRowTiles; ++m) {
            const Rows rows([&](int row) {
                const int at = first_row + 16 * m + row;
                return at < block().rows ? block().template out<T>(at) : nullptr;
            });
#pragma unroll
            for (int part = 0; part < Rows::kParts; ++part) {
                constexpr int kBlocks = Part::kColumns / 8;
                stage(warp_, m, part * kBlocks, min((part + 1) * kBlocks, Shape::kDim / 8), part_, 0);
                __syncwarp();
                rows.store(part, part_);
                __syncwarp();
            }
        }
    }

    const ForwardLaunch& launch_;
    const AttentionProblem& p_;
    const int blocks_, first_keys_;  // of keys
    const int first_row_;            // of the first block's keys in their tile
    const Tile keys_;                // the tile of the first block, whose rows before first_row_ do not exist
    const Part part_;
    ForwardWarp<Shape> warp_;
};

}  // namespace vlmk::gpu
