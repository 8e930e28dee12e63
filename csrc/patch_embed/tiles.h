// Tile choices of the CUDA patch embedding, with their reasons.
#pragma once
#include <cstdint>

#include "core/inline.h"

namespace vlmk {

// Warps of a block are two across and up to four down; each owns 32 rows, so that a fragment from shared memory serves
// several tensor-core instructions, and half of the columns: 64 in 16 bit, 32 in fp32, whose products need three sums
// at once. Sums then take half of the 128 registers that let two blocks of 256 threads share a multiprocessor: while
// one loads and converts pixels, the other computes.
constexpr int kPatchThreads = 256;
constexpr int kPatchWarpRows = 32;
constexpr int kPatchWarpsAcross = 2;
constexpr int kPatchRows = kPatchThreads / 32 / kPatchWarpsAcross * kPatchWarpRows;  // 128

// Numbers of a patch in a tile: up to 256 bytes, which whole rows of common patches fill: 8 rows of 16 pixels or 14 (7
// steps of 16), 4 of 32, 3 rows of 14 pixels with 3 channels (98 %); in half of it a row of those 42 numbers would
// waste a third. Two tiles of 128 rows take 68 KB: two blocks a multiprocessor of 164 KB, one of 100 KB. Where lines of
// bytes wait beside them (below), one of 164 KB too, whose copies then run beside its own products.
constexpr int kPatchTileBytes = 256;
constexpr int kPatchPitch = kPatchTileBytes + 16;  // an odd number of 16-byte chunks

VLMK_HOST_DEVICE constexpr int patch_tile_numbers(int element_bytes) { return kPatchTileBytes / element_bytes; }
// Depths of products are multiples of this.
VLMK_HOST_DEVICE constexpr int patch_granule(int element_bytes) { return element_bytes == 2 ? 16 : 8; }
// Columns of a block.
VLMK_HOST_DEVICE constexpr int patch_columns(int element_bytes) { return patch_tile_numbers(element_bytes); }

// Problems that do not fill a GPU with blocks of 128 patches get blocks of 64 and half the threads: two for each of the
// 132 multiprocessors of an H100.
constexpr int kPatchFullBlocks = 264;

// Sums leave through the memory of the tiles in fp32: pitches of 8 words more than whole lines of banks have no
// conflicts when pairs are written.
constexpr int kPatchSumPad = 8;

// Behind the tiles: what is known about rows (16 bytes each); twice, about runs and the part of a patch they are; about
// neighbours on a line; and about channels.
constexpr int kPatchRuns = 128;               // of a tile, at most
constexpr int kPatchGroups = kPatchRows / 2;  // of neighbours on a line, where bytes go by lines
constexpr int kPatchTableBytes = kPatchRows * 16 + 2 * kPatchRuns * 16 + 2 * 16 + kPatchGroups * 32;
constexpr int kPatchNormBytes = 8;

// Lines of bytes that wait beside tiles: as many as leave a block its 99 KB of shared memory on every GPU. For patches
// of 14 that is enough from 11 (three channels: 13) to 16 a line, from 22 (24) on, and with three channels not a few
// past a multiple of 16, which leave much of their groups empty.
constexpr int kPatchMostBytes = 99 * 1024;

// Backward of the weight: patches that are summed at a time. 64, so that two blocks share a multiprocessor in fp32 too.
constexpr int kPatchDepth = 64;
// Rows of the weight's gradient in a block.
constexpr int kPatchGradientRows = kPatchRows;
// At least so many steps of kPatchDepth patches a part, or writing and adding the parts would cost more than it brings.
constexpr int kPatchMinSteps = 4;

// Backward of pixels: the depth, which is the embedding, in steps of 128 bytes.
VLMK_HOST_DEVICE constexpr int patch_embed_step(int element_bytes) { return 128 / element_bytes; }

// Tiles of a block, and the sums that leave through their memory.
VLMK_HOST_DEVICE constexpr int patch_larger(int a, int b) { return a > b ? a : b; }
VLMK_HOST_DEVICE constexpr int patch_sum_bytes(int element_bytes) {
    return kPatchRows * (patch_columns(element_bytes) + kPatchSumPad) * 4;
}
VLMK_HOST_DEVICE constexpr int patch_forward_bytes(int element_bytes) {
    return (kPatchRows + patch_columns(element_bytes)) * kPatchPitch;
}
VLMK_HOST_DEVICE constexpr int patch_weight_gradient_bytes(int element_bytes) {
    return kPatchDepth * (kPatchPitch + kPatchGradientRows * element_bytes + 16);
}
VLMK_HOST_DEVICE constexpr int patch_pixel_gradient_bytes(int element_bytes) {
    return patch_larger(kPatchRows * (128 + 16) + patch_embed_step(element_bytes) * kPatchPitch,
                        patch_sum_bytes(element_bytes));
}

// Prefix tokens that a block writes.
constexpr int kPatchPrefixRows = 8;

// Gradients of tokens: columns of a block, one a thread; tokens that a thread sums over the batch, at least; and the
// most strips of tokens, which a last kernel adds for the bias.
constexpr int kTokenThreads = 128;
constexpr int kTokenStrip = 4;
constexpr int kTokenStrips = 256;

// Parts of the weight's gradient are added by as many threads as there are numbers.
constexpr int kPartThreads = 256;

// Beyond so many channels a table of means and deviations would not fit beside the tiles.
constexpr int64_t kPatchMaxNormChannels = 2048;

}  // namespace vlmk
