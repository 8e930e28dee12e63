// How the CUDA kernels of the contrastive losses divide their work: every choice with its reason. Host and device.
//
// The matrix of logits is walked in chunks. Of a chunk a first kernel makes logits, tile by tile, and of them what the
// loss wants: statistics, or the gradient of the logits G, which it leaves in a workspace; a second one multiplies G
// with both sides' features. A sum of rows x D for all of D does not fit into registers from D 768 on, and splitting D
// over blocks would make every block compute all logits again. G in memory costs 6 bytes a logit of traffic, where the
// products of a logit take 6 D operations.
#pragma once
#include <cstdint>

namespace vlmk {

// Four warps, two by two. A warp's 64 x 64 sums are the most that registers hold: a fragment then serves four
// products, and shared memory is read a quarter as often as tensor cores issue. fp32 needs three sums of everything
// (gpu/split_tf32.cuh), so half as many each way.
constexpr int kLossThreads = 128;
constexpr int strip_side(int element_bytes) { return 128 / element_bytes; }  // of a warp
constexpr int tile_side(int element_bytes) { return 2 * strip_side(element_bytes); }

// A stage is a line of 128 bytes of every row: 8 lanes copy it whole, and a barrier serves 128 instructions of the
// tensor cores a warp. Two stages, one filled while the other is used: 72 KB, two blocks an SM of 164 KB.
constexpr int stage_depth(int element_bytes) { return 128 / element_bytes; }

// Rows are an odd number of 16-byte chunks apart, or two more than a multiple of eight where fp32 is read word by word.
constexpr int kLineBytes = 128 + 16;
constexpr int wide_row_bytes(int element_bytes) { return 256 + (element_bytes == 4 ? 32 : 16); }

constexpr int logits_shared_bytes(int element_bytes) { return 2 * 2 * tile_side(element_bytes) * kLineBytes; }
constexpr int products_shared_bytes(int element_bytes) {
    const int side = tile_side(element_bytes) * kLineBytes,
              wide = stage_depth(element_bytes) * wide_row_bytes(element_bytes);
    return 2 * ((side > wide ? side : wide) + wide);
}

// Rows and columns of a chunk: its G is 128 MB of 16-bit numbers. Square, so that the sums of both sides are long ones;
// from D 512 on each side then has 256 blocks and more, two waves of two blocks on 132 SMs. Half as many rows and
// columns would stay in the second-level cache, but leave waves half empty, and read and write sums twice as often.
constexpr int64_t kChunkSide = 8192;

// Strips are put together by 8 warps for 32 neighbouring rows: a line of 128 bytes a load, and enough loads under way.
constexpr int kMergeLines = 32, kMergeParts = 8, kMergeLossThreads = kMergeLines * kMergeParts;
// One block that looks at every weight for the largest: as many loads under way as it can have.
constexpr int kRangeThreads = 1024;
// Gradients from their sums: a warp a row, 8 rows a block.
constexpr int kFinishThreads = 256;

}  // namespace vlmk
