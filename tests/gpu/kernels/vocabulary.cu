// One small kernel for each word of csrc/gpu, for the emulator. Each is one warp unless it says otherwise.
#include "gpu/convert.cuh"
#include "gpu/copy_async.cuh"
#include "gpu/divisor.cuh"
#include "gpu/exp2.cuh"
#include "gpu/ldmatrix.cuh"
#include "gpu/mma.cuh"
#include "gpu/operands.cuh"
#include "gpu/packed.cuh"
#include "gpu/reduce.cuh"
#include "gpu/shared_access.cuh"
#include "gpu/shared_tile.cuh"
#include "gpu/split_tf32.cuh"
#include "gpu/stmatrix.cuh"
#include "gpu/tile_product.cuh"
#include "gpu/tile_view.cuh"
#include "gpu/vector.cuh"
#include "gpu/window_copy.cuh"

using namespace vlmk;
using namespace vlmk::gpu;

namespace {

// D = A B with the fragments filled element by element from row-major matrices in global memory, by the layout that
// fragments.cuh states.
template <class T, class Number, int kDepth, class Element>
VLMK_DEVICE void product(const Element* a, const Element* b, Number* d) {
    constexpr int kPack = 4 / static_cast<int>(sizeof(Element));  // elements of a register
    const int g = lane_index() / 4, t = lane_index() % 4;
    LeftFragment<T, kDepth> left;
    for (int i = 0; i < left.kRegisters; ++i)
        left.r[i] = *reinterpret_cast<const uint32_t*>(a + (g + 8 * (i % 2)) * kDepth + (t + 4 * (i / 2)) * kPack);
    RightFragment<T, kDepth> right;
    for (int i = 0; i < right.kRegisters; ++i) {
        Element column[kPack];
        for (int e = 0; e < kPack; ++e) column[e] = b[((t + 4 * i) * kPack + e) * 8 + g];
        memcpy(&right.r[i], column, 4);
    }
    Accumulator<Number> sum;
    mma(sum, left, right);
    for (int i = 0; i < 4; ++i) d[sum.row(i) * 8 + sum.column(i)] = sum.v[i];
}

// Fills a tile from a contiguous global matrix.
template <class Tile>
VLMK_DEVICE void fill(const Tile& tile, const typename Tile::Element* from) {
    constexpr int kChunks = Tile::kColumns / Tile::kChunk;
    for (int i = threadIdx.x; i < Tile::kRows * kChunks; i += blockDim.x)
        copy_async(tile.address(i / kChunks, i % kChunks * Tile::kChunk),
                   from + i / kChunks * Tile::kColumns + i % kChunks * Tile::kChunk);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
}

VLMK_DEVICE void write(float* d, int columns, int row, int column, const Accumulator<>& sum) {
    for (int i = 0; i < 4; ++i) d[(row + sum.row(i)) * columns + column + sum.column(i)] = sum.v[i];
}

// One warp of flash attention without the softmax: S (16 x 32) = Q K^T over 24 of the depth, a k16 step and a k8 tail;
// P = S rounded; O (16 x 24) = P V, two pairs of column blocks and the odd one.
template <class T, class Layout, int kStored>
VLMK_DEVICE void two_products(const T* q, const T* k, const T* v, float* s, float* o) {
    extern __shared__ __align__(16) char memory[];
    constexpr int kDim = 24;
    using Queries = SharedTile<T, 16, kStored, Layout>;
    using Keys = SharedTile<T, 32, kStored, Layout>;
    const uint32_t base = shared_address(memory);
    const Queries queries(base);
    const Keys keys(base + Queries::kBytes), values(base + Queries::kBytes + Keys::kBytes);
    fill(queries, q);
    fill(keys, k);
    fill(values, v);

    Accumulator<> score[4];
    const auto left = load_left(queries, 0, 0);
    for (int n = 0; n < 4; n += 2) {
        const auto right = load_right(keys, 8 * n, 0);
        mma(score[n], left, right.b[0]);
        mma(score[n + 1], left, right.b[1]);
    }
    const auto left_tail = load_left_half(queries, 0, 16);
    const auto right_tail = load_right_halves(keys, 0, 16);
    for (int n = 0; n < 4; ++n) mma(score[n], left_tail, right_tail.b[n]);
    for (int n = 0; n < 4; ++n) write(s, 32, 0, 8 * n, score[n]);

    Accumulator<> out[3];
    const auto column = load_right_column(values, 0, 16);
    for (int step = 0; step < 2; ++step) {
        const auto p = as_left<T>(score[2 * step], score[2 * step + 1]);
        const auto right = load_right_transposed(values, 16 * step, 0);
        mma(out[0], p, right.b[0]);
        mma(out[1], p, right.b[1]);
        mma(out[2], p, column.b[step]);
    }
    for (int n = 0; n < kDim / 8; ++n) write(o, kDim, 0, 8 * n, out[n]);
}

// The same products out of the second of two stages, through views that were made for the first.
template <class T>
VLMK_DEVICE void two_products_by_views(const T* q, const T* k, const T* v, float* s, float* o) {
    extern __shared__ __align__(16) char memory[];
    using Queries = SharedTile<T, 16, 24>;
    using Keys = SharedTile<T, 32, 24>;
    const uint32_t base = shared_address(memory);
    fill(Queries(base + Queries::kBytes), q);
    fill(Keys(base + 2 * Queries::kBytes + Keys::kBytes), k);
    fill(Keys(base + 2 * Queries::kBytes + 3 * Keys::kBytes), v);
    const auto queries = DownView<Queries>(Queries(base), 0, 0) + Queries::kBytes;
    const auto keys = AcrossView<Keys>(Keys(base + 2 * Queries::kBytes), 0, 0) + Keys::kBytes;
    const auto values = DownView<Keys>(Keys(base + 2 * Queries::kBytes), 0, 0) + 3 * Keys::kBytes;

    Accumulator<> score[4];
    for (int n = 0; n < 4; n += 2) {
        RightFragment<T, 16> right[2];
        keys.right(8 * n, 0, right);
        mma(score[n], queries.left(0, 0), right[0]);
        mma(score[n + 1], queries.left(0, 0), right[1]);
        RightFragment<T, 8> tail[2];
        values.right_of_half_depth(8 * n - 64, 16, tail);  // keys, two tiles before
        mma(score[n], queries.left_half(0, 16), tail[0]);
        mma(score[n + 1], queries.left_half(0, 16), tail[1]);
    }
    for (int n = 0; n < 4; ++n) write(s, 32, 0, 8 * n, score[n]);

    Accumulator<> out[3];
    for (int step = 0; step < 2; ++step) {
        const auto p = as_left<T>(score[2 * step], score[2 * step + 1]);
        RightFragment<T, 16> right[2];
        values.right(16 * step, 0, right);
        mma(out[0], p, right[0]);
        mma(out[1], p, right[1]);
        mma(out[2], p, values.right_half(16 * step, 16));
    }
    for (int n = 0; n < 3; ++n) write(o, 24, 0, 8 * n, out[n]);
}

// S (32 x 32) = Q K^T and O (32 x kColumns) = S V, S rounded, of tiles with 32 rows of which `used` columns count.
template <class T, int kColumns>
VLMK_DEVICE void tile_products(const T* q, const T* k, const T* v, float* s, float* o, int used) {
    extern __shared__ __align__(16) char memory[];
    using Tile = SharedTile<T, 32, kColumns>;
    const uint32_t base = shared_address(memory);
    fill(Tile(base), q);
    fill(Tile(base + Tile::kBytes), k);
    fill(Tile(base + 2 * Tile::kBytes), v);
    const TileView<Tile> queries{Tile(base)};
    TileSum<2, 4> scores;
    add_product_transposed(scores, queries, queries + Tile::kBytes, used);
    TileSum<2, kColumns / 8> out;
    add_product(out, as_left_rows<T>(scores), queries + 2 * Tile::kBytes, used);
    for (int m = 0; m < 2; ++m) {
        for (int n = 0; n < 4; ++n) write(s, 32, 16 * m, 8 * n, scores[m][n]);
        for (int n = 0; n < kColumns / 8; ++n) write(o, kColumns, 16 * m, 8 * n, out[m][n]);
    }
}

}  // namespace

extern "C" __global__ void mma_f16_k16(const uint16_t* a, const uint16_t* b, float* d) {
    product<f16, float, 16>(a, b, d);
}
extern "C" __global__ void mma_bf16_k16(const uint16_t* a, const uint16_t* b, float* d) {
    product<bf16, float, 16>(a, b, d);
}
extern "C" __global__ void mma_f16_k8(const uint16_t* a, const uint16_t* b, float* d) {
    product<f16, float, 8>(a, b, d);
}
extern "C" __global__ void mma_bf16_k8(const uint16_t* a, const uint16_t* b, float* d) {
    product<bf16, float, 8>(a, b, d);
}
extern "C" __global__ void mma_tf32_k8(const uint32_t* a, const uint32_t* b, float* d) {
    product<tf32, float, 8>(a, b, d);
}
extern "C" __global__ void mma_tf32_k4(const uint32_t* a, const uint32_t* b, float* d) {
    product<tf32, float, 4>(a, b, d);
}
extern "C" __global__ void mma_s8_k32(const int8_t* a, const int8_t* b, int32_t* d) {
    product<int8_t, int32_t, 32>(a, b, d);
}

extern "C" __global__ void attention_f16_pitch(const f16* q, const f16* k, const f16* v, float* s, float* o) {
    two_products<f16, OddPitch, 24>(q, k, v, s, o);
}
extern "C" __global__ void attention_bf16_pitch(const bf16* q, const bf16* k, const bf16* v, float* s, float* o) {
    two_products<bf16, OddPitch, 24>(q, k, v, s, o);
}
extern "C" __global__ void attention_bf16_pitch_even(const bf16* q, const bf16* k, const bf16* v, float* s, float* o) {
    two_products<bf16, OddPitch, 32>(q, k, v, s, o);
}
extern "C" __global__ void attention_bf16_swizzle_32(const bf16* q, const bf16* k, const bf16* v, float* s, float* o) {
    two_products<bf16, Swizzle, 32>(q, k, v, s, o);
}
extern "C" __global__ void attention_bf16_swizzle_128(const bf16* q, const bf16* k, const bf16* v, float* s, float* o) {
    two_products<bf16, Swizzle, 128>(q, k, v, s, o);
}

extern "C" __global__ void attention_f16_views(const f16* q, const f16* k, const f16* v, float* s, float* o) {
    two_products_by_views(q, k, v, s, o);
}
extern "C" __global__ void attention_bf16_views(const bf16* q, const bf16* k, const bf16* v, float* s, float* o) {
    two_products_by_views(q, k, v, s, o);
}

#define TILE_PRODUCTS(name, T, columns)                                                                     \
    extern "C" __global__ void tile_products_##name(const T* q, const T* k, const T* v, float* s, float* o, \
                                                    int used) {                                             \
        tile_products<T, columns>(q, k, v, s, o, used);                                                     \
    }
TILE_PRODUCTS(f16_24, f16, 24)
TILE_PRODUCTS(bf16_24, bf16, 24)
TILE_PRODUCTS(bf16_32, bf16, 32)
TILE_PRODUCTS(f32_40, float, 40)

// D (16 x 16) = A B^T of fp32, 8 of the depth at a time; both are 16 x 24.
extern "C" __global__ void split_tf32(const float* a, const float* b, float* d) {
    using Tile = SharedTile<float, 16, 24>;
    __shared__ __align__(16) char memory[2 * Tile::kBytes];
    const Tile left(shared_address(memory)), right(shared_address(memory) + Tile::kBytes);
    fill(left, a);
    fill(right, b);
    const DownView<Tile> rows(left, 0, 0);
    const AcrossView<Tile> columns(right, 0, 0);
    Accumulator<> large[2], small[2];
    for (int k = 0; k < 24; k += 8) {
        RightFragment<tf32, 8> two[2];
        columns.right8(0, k, two);
        for (int n = 0; n < 2; ++n) {
            mma_large(large[n], split(rows.left8(0, k)), split(two[n]));
            mma_small(small[n], split(rows.left8(0, k)), split(two[n]));
        }
    }
    for (int n = 0; n < 2; ++n) {
        add(large[n], small[n]);
        write(d, 16, 0, 8 * n, large[n]);
    }
}

// Words of every kind through shared memory: out[lane] = in[lane], four words a lane.
extern "C" __global__ void shared_words(const uint4* in, uint4* out) {
    __shared__ __align__(16) char memory[32 * 16];
    const int lane = lane_index();
    const uint32_t at = shared_address(memory) + lane * 16;
    store_shared(at, in[lane].x);
    store_shared(at + 4, in[lane].y);
    store_shared(at + 8, __uint_as_float(in[lane].z), __uint_as_float(in[lane].w));
    __syncwarp();
    const uint4 whole = load_shared<uint4>(at);
    out[lane] = make_uint4(load_shared<uint32_t>(at), whole.y, whole.z, whole.w);
}

// D (16 x 8) = A^T B with A (16 x 16) stored as depth by rows, B (8 x 16) as columns by depth.
extern "C" __global__ void left_transposed(const bf16* a, const bf16* b, float* d) {
    __shared__ __align__(16) char memory[SharedTile<bf16, 16, 16>::kBytes * 2];
    const SharedTile<bf16, 16, 16> left(shared_address(memory)), right(shared_address(memory) + left.kBytes);
    fill(left, a);
    fill(right, b);
    Accumulator<> sum;
    mma(sum, load_left_transposed(left, 0, 0), load_right(right, 0, 0).b[0]);
    write(d, 8, 0, 0, sum);
}

// D (32 x 40) = A B and A^T B of a square A (32 x 32) and B (32 x 40): left operands out of both kinds of tiles meet a
// right one. fp32 operands take the rows 2t and 2t + 1 of B as depths t and t + 4, so those of A B are in that order.
template <class T>
VLMK_DEVICE void left_rows(const T* a, const T* b, float* product, float* transposed) {
    extern __shared__ __align__(16) char memory[];
    using Left = SharedTile<T, 32, 32>;
    using Right = SharedTile<T, 32, 40>;
    const uint32_t base = shared_address(memory);
    fill(Left(base), a);
    fill(Right(base + Left::kBytes), b);
    const TileView<Left> left{Left(base)};
    const TileView<Right> right{Right(base + Left::kBytes)};
    TileSum<2, 5> sum, sum_transposed;
    add_product(sum, load_left_rows<2, 4>(left), right);
    add_product(sum_transposed, load_left_rows_transposed<2, 4>(left), right);
    for (int m = 0; m < 2; ++m)
        for (int n = 0; n < 5; ++n) {
            write(product, 40, 16 * m, 8 * n, sum[m][n]);
            write(transposed, 40, 16 * m, 8 * n, sum_transposed[m][n]);
        }
}
extern "C" __global__ void left_rows_bf16(const bf16* a, const bf16* b, float* p, float* t) { left_rows(a, b, p, t); }
extern "C" __global__ void left_rows_f32(const float* a, const float* b, float* p, float* t) { left_rows(a, b, p, t); }

// Each lane's kCount numbers, through registers and shared memory, as floats, and back rounded to bf16.
template <class T, int kCount>
VLMK_DEVICE void packed(const T* from, T* copy, float* wide, bf16* rounded) {
    __shared__ __align__(16) bf16 memory[32 * kCount];
    const int at = lane_index() * kCount;
    const auto numbers = Packed<T, kCount>::load(from + at);
    numbers.store(copy + at);
    float values[kCount];
    for (int i = 0; i < kCount; ++i) wide[at + i] = values[i] = numbers[i];
    store_numbers<bf16>(shared_address(memory + at), values);
    for (int i = 0; i < kCount; ++i) rounded[at + i] = memory[at + i];
}
#define PACKED(name, T, count)                                                                               \
    extern "C" __global__ void packed_##name##_##count(const T* from, T* copy, float* wide, bf16* rounded) { \
        packed<T, count>(from, copy, wide, rounded);                                                         \
    }
PACKED(u8, uint8_t, 1)
PACKED(u8, uint8_t, 2)
PACKED(u8, uint8_t, 4)
PACKED(u8, uint8_t, 8)
PACKED(u8, uint8_t, 16)
PACKED(bf16, bf16, 1)
PACKED(bf16, bf16, 2)
PACKED(bf16, bf16, 8)
PACKED(f16, f16, 4)
PACKED(f32, float, 1)
PACKED(f32, float, 2)
PACKED(f32, float, 4)

extern "C" __global__ void divisions(const int* numbers, const int* divisors, int* quotients, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) quotients[i] = Divisor(divisors[i])(numbers[i]);
}

// Every count and both directions of ldmatrix and stmatrix on a 32 x 8 block: out is what each lane got, back the block
// as stored again.
template <bool kTransposed, int kCount>
VLMK_DEVICE void matrices(const uint16_t* from, uint32_t* out, uint16_t* back) {
    __shared__ __align__(16) uint16_t loaded[256], stored[256];
    for (int i = threadIdx.x; i < 256; i += 32) loaded[i] = from[i], stored[i] = 0xffff;
    __syncwarp();
    uint32_t r[kCount];
    load_matrices<kTransposed>(r, shared_address(loaded + 8 * (threadIdx.x % (8 * kCount))));
    for (int i = 0; i < kCount; ++i) out[threadIdx.x * kCount + i] = r[i];
    if constexpr (kCount > 1) {
        store_matrices<kTransposed>(shared_address(stored + 8 * (threadIdx.x % (8 * kCount))), r);
        __syncwarp();
        for (int i = threadIdx.x; i < 256; i += 32) back[i] = stored[i];
    }
}
extern "C" __global__ void matrices_1(const uint16_t* f, uint32_t* o, uint16_t* b) { matrices<false, 1>(f, o, b); }
extern "C" __global__ void matrices_2(const uint16_t* f, uint32_t* o, uint16_t* b) { matrices<false, 2>(f, o, b); }
extern "C" __global__ void matrices_4(const uint16_t* f, uint32_t* o, uint16_t* b) { matrices<false, 4>(f, o, b); }
extern "C" __global__ void matrices_1_transposed(const uint16_t* f, uint32_t* o, uint16_t* b) {
    matrices<true, 1>(f, o, b);
}
extern "C" __global__ void matrices_2_transposed(const uint16_t* f, uint32_t* o, uint16_t* b) {
    matrices<true, 2>(f, o, b);
}
extern "C" __global__ void matrices_4_transposed(const uint16_t* f, uint32_t* o, uint16_t* b) {
    matrices<true, 4>(f, o, b);
}

// Sums columns of a (rows x 32) matrix through a ring of three stages of 8 rows, filled two tiles ahead; rows past the
// end arrive as zeros. 64 threads.
extern "C" __global__ void pipeline(const float* from, float* sums, int rows) {
    constexpr int kStages = 3, kTileRows = 8;
    using Tile = SharedTile<float, kTileRows, 32>;
    __shared__ __align__(16) char memory[kStages * Tile::kBytes];
    const auto stage = [](int tile) { return Tile(shared_address(memory) + tile % kStages * Tile::kBytes); };
    const int tiles = (rows + kTileRows - 1) / kTileRows;
    const auto start = [&](int tile) {
        const int row = threadIdx.x / 8, column = threadIdx.x % 8 * 4;
        const bool valid = tile * kTileRows + row < rows;
        if (tile < tiles)
            copy_async_or_zero(stage(tile).address(row, column),
                               from + (valid ? (tile * kTileRows + row) * 32 + column : 0), valid ? 16 : 0);
        commit_copies();
    };
    for (int tile = 0; tile < kStages - 1; ++tile) start(tile);
    float sum = 0.0f;
    for (int tile = 0; tile < tiles; ++tile) {
        wait_copies<kStages - 2>();
        __syncthreads();
        start(tile + kStages - 1);
        if (threadIdx.x < 32)
            for (int row = 0; row < kTileRows; ++row) {
                float value;
                asm volatile("ld.shared.f32 %0, [%1];"
                             : "=f"(value)
                             : "r"(stage(tile).address(row, threadIdx.x))
                             : "memory");
                sum += value;
            }
    }
    if (threadIdx.x < 32) sums[threadIdx.x] = sum;
}

// Copies of 4 and 8 bytes, whole and with a zero tail.
extern "C" __global__ void small_copies(const uint8_t* from, uint8_t* to) {
    __shared__ __align__(16) uint8_t memory[32 * 24];
    const uint32_t mine = shared_address(memory) + threadIdx.x * 24;
    const uint8_t* source = from + threadIdx.x * 24;
    copy_async<8>(mine, source);
    copy_async<4>(mine + 8, source + 8);
    copy_async_or_zero<4>(mine + 12, source + 12, 1);
    copy_async_or_zero<8>(mine + 16, source + 16, 5);
    commit_copies();
    wait_copies<0>();
    __syncwarp();
    for (int i = 0; i < 24; ++i) to[threadIdx.x * 24 + i] = memory[threadIdx.x * 24 + i];
}

extern "C" __global__ void reductions(const float* from, float* out) {
    const float value = from[threadIdx.x];
    const float found[] = {reduce_add(value), reduce_add<8>(value), reduce_add<4>(value), reduce_max(value),
                           reduce_max<16>(value)};
    for (int i = 0; i < 5; ++i) out[i * 32 + threadIdx.x] = found[i];
}

extern "C" __global__ void powers(const float* from, float* exponential, float* logarithm, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    exponential[i] = gpu::exp2(from[i]);
    logarithm[i] = gpu::log2(from[i]);
}

// Every conversion, once alone and once as a pair with the negated value.
template <class T>
VLMK_DEVICE void convert(const float* from, T* single, uint32_t* pair, float* wide, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    single[i] = from_float<T>(from[i]);
    pair[i] = pack<T>(from[i], -from[i]);
    unpack<T>(pair[i], wide[3 * i], wide[3 * i + 1]);
    wide[3 * i + 2] = to_float(single[i]);
}
extern "C" __global__ void convert_f16(const float* f, f16* s, uint32_t* p, float* w, int count) {
    convert(f, s, p, w, count);
}
extern "C" __global__ void convert_bf16(const float* f, bf16* s, uint32_t* p, float* w, int count) {
    convert(f, s, p, w, count);
}
extern "C" __global__ void convert_tf32(const float* f, uint32_t* s, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) s[i] = to_tf32(f[i]);
}

// Twice the input, by wide accesses and by single elements.
template <class T>
VLMK_DEVICE void vectors(const T* from, T* wide, T* narrow) {
    float values[kVectorElements<T>];
    load(from + threadIdx.x * kVectorElements<T>, values);
    for (float& value : values) value *= 2.0f;
    store(wide + threadIdx.x * kVectorElements<T>, values);
    float one[1];
    load(from + threadIdx.x, one);
    one[0] *= 2.0f;
    store(narrow + threadIdx.x, one);
}
extern "C" __global__ void vectors_f32(const float* f, float* w, float* n) { vectors(f, w, n); }
extern "C" __global__ void vectors_f16(const f16* f, f16* w, f16* n) { vectors(f, w, n); }
extern "C" __global__ void vectors_bf16(const bf16* f, bf16* w, bf16* n) { vectors(f, w, n); }

extern "C" __global__ void reductions_apart(const float* from, float* out) {
    const float value = from[threadIdx.x];
    const float found[] = {reduce_add_apart<4>(value), reduce_add_apart<8>(value), reduce_max_apart<4>(value)};
    for (int i = 0; i < 3; ++i) out[i * 32 + threadIdx.x] = found[i];
}

extern "C" __global__ void reciprocals(const float* from, float* inverse, float* log1p, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    inverse[i] = reciprocal(from[i]);
    log1p[i] = log1p_up_to_1(from[i]);
}

// D (16 x 16) = A B of fp32 with a depth of 32, both read word by word: A is depth by rows, B depth by columns.
extern "C" __global__ void split_words(const float* a, const float* b, float* d) {
    using Tile = SharedTile<float, 32, 16, WordPitch>;
    __shared__ __align__(16) char memory[2 * Tile::kBytes];
    const Tile left(shared_address(memory)), right(shared_address(memory) + Tile::kBytes);
    fill(left, a);
    fill(right, b);
    const WordView<Tile> rows(left, 0, 0), columns(right, 0, 0);
    TileSum<1, 2> sum;
    add_split_product(
        sum, [&](int row, int k) { return rows.left8(k, row); },
        [&](int k, int column) { return columns.right8(k, column); });
    for (int n = 0; n < 2; ++n) write(d, 16, 0, 8 * n, sum[0][n]);
}

// Three windows below each other, of 16 rows and 64 bytes, from (row, byte) on; `inside` as a stream.
extern "C" __global__ void windows(const char* data, int rows, int row_bytes, int stride, int access, int row, int byte,
                                   int inside, uint16_t* out) {
    using Tile = SharedTile<uint16_t, 16, 32>;
    extern __shared__ __align__(16) char memory[];
    const Matrix matrix{data, rows, row_bytes, stride, access};
    WindowStream<Tile, 32> stream(matrix, inside ? row : 0, inside ? byte : 0);
    int number = 0;
    in_two_stages<Tile::kBytes>(
        shared_address(memory), 3,
        [&](uint32_t stage) {
            if (inside)
                stream.start(stage);
            else
                WindowCopy<Tile, 32>::start(Tile(stage), matrix, row, byte);
            stream.advance_rows(16);
            row += 16;
        },
        [&](uint32_t stage) {
            for (int r = 0; r < 16; ++r) {
                uint16_t value;
                asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(Tile(stage).address(r, threadIdx.x)));
                out[(number * 16 + r) * 32 + threadIdx.x] = value;
            }
            ++number;
        });
}
