// Tile choices of the CUDA kernels that merge split attention. The kernels only move memory: a row's D numbers are read
// from every split once, so what counts is that a warp's accesses fill whole sectors and that enough of them are under
// way.
#pragma once

namespace vlmk {

// Four warps: small enough that the last block of a short problem wastes little, large enough for full occupancy at 16
// blocks an SM.
constexpr int kMergeThreads = 128;

// `lanes` of a warp share a row, each accessing `bytes` at once (0: a single element).
struct MergeTile {
    int lanes, bytes;
};

constexpr MergeTile kMergeTiles[] = {
    // Up to 256 bytes, which is D 64 in fp32 and D 128 in 16 bit: 8 lanes of 16 bytes are a 128-byte line, one or two
    // of them a row; four rows a warp, and three shuffles to sum over a row.
    {8, 16},
    // Longer rows: the whole warp, or 8 lanes would walk four lines and more one after the other.
    {32, 16},
    // Rows that 16-byte accesses cannot reach (odd D, odd strides, a shifted start): neighbouring lanes on neighbouring
    // elements still fill sectors.
    {32, 0},
};
constexpr int kMergeShortRowBytes = 256;

}  // namespace vlmk
