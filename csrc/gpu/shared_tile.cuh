// A tile of rows in shared memory. The type owns where an element is; nobody else does address arithmetic on it.
#pragma once
#include "gpu/device.cuh"

namespace vlmk::gpu {

// ldmatrix reads rows of 16 bytes: eight consecutive rows at one column must lie in different groups of four banks.
constexpr int kChunkBytes = 16;

// Rows an odd number of chunks apart. Addresses are linear, so that a loop needs one register for a tile and constants
// for all else; costs up to one chunk of padding a row.
struct OddPitch {
    static constexpr bool kLinear = true;
    VLMK_HOST_DEVICE static constexpr int pitch(int row_bytes) {
        const int chunks = (row_bytes + kChunkBytes - 1) / kChunkBytes;
        return (chunks % 2 == 1 ? chunks : chunks + 1) * kChunkBytes;
    }
    VLMK_DEVICE static int offset(int row, int column_bytes, int row_bytes) {
        return row * pitch(row_bytes) + column_bytes;
    }
};

// Rows two chunks more than a multiple of eight apart, of tiles that are read word by word: four consecutive rows at
// eight neighbouring words lie in different banks.
struct WordPitch {
    static constexpr bool kLinear = true;
    VLMK_HOST_DEVICE static constexpr int pitch(int row_bytes) {
        const int chunks = (row_bytes + kChunkBytes - 1) / kChunkBytes;
        return ((chunks + 5) / 8 * 8 + 2) * kChunkBytes;
    }
    VLMK_DEVICE static int offset(int row, int column_bytes, int row_bytes) {
        return row * pitch(row_bytes) + column_bytes;
    }
};

// Rows without padding, their chunks exchanged by row (exclusive or). For tiles that must not grow; the row must be a
// power of two from 32 bytes on, and a loop needs a register for each column it reads.
struct Swizzle {
    static constexpr bool kLinear = false;
    VLMK_HOST_DEVICE static constexpr int pitch(int row_bytes) { return row_bytes; }
    VLMK_DEVICE static int offset(int row, int column_bytes, int row_bytes) {
        // Rows shorter than the 128 bytes of all banks share a line: as many rows as share one use the same exchange.
        const int chunks = row_bytes / kChunkBytes, kinds = chunks < 8 ? chunks : 8, rows_per_line = 8 / kinds;
        const int exchange = row / rows_per_line % kinds;
        return row * row_bytes + (column_bytes ^ (exchange * kChunkBytes));
    }
};

template <class T, int kTileRows, int kTileColumns, class Layout = OddPitch>
class SharedTile {
  public:
    using Element = T;
    static constexpr int kRows = kTileRows, kColumns = kTileColumns;
    static constexpr int kRowBytes = kColumns * static_cast<int>(sizeof(T));
    static constexpr int kBytes = kRows * Layout::pitch(kRowBytes);
    static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));  // elements of a chunk
    static_assert(kRowBytes % kChunkBytes == 0, "rows are whole chunks of 16 bytes");
    static_assert(Layout::kLinear || (kRowBytes >= 32 && (kRowBytes & (kRowBytes - 1)) == 0),
                  "a swizzled row is a power of two of at least 32 bytes");

    // `base` is an address in the shared space, a multiple of 16.
    VLMK_DEVICE explicit SharedTile(uint32_t base) : base_(base) {}

    VLMK_DEVICE uint32_t address(int row, int column) const {
        return base_ + Layout::offset(row, column * static_cast<int>(sizeof(T)), kRowBytes);
    }

    // How far an element is from the tile's start, for layouts that are linear.
    VLMK_DEVICE static constexpr int offset(int row, int column) {
        static_assert(Layout::kLinear, "addresses of exchanged chunks are not linear");
        return row * Layout::pitch(kRowBytes) + column * static_cast<int>(sizeof(T));
    }

  private:
    uint32_t base_;
};

// The address of a variable in shared memory, for instructions that name the space.
VLMK_DEVICE uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace vlmk::gpu
