"""Threads of a warp and of a block together: shuffles, votes, matrices, barriers, divergence."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import compile_cuda, emulator, kernel, needs_nvcc

RNG = np.random.default_rng(3)
STORE = "mad.wide.u32 %at, %tid, 4, %p0;\nst.global.b32 [%at], %r0;"


def run(text: str, *args: np.ndarray, grid: int = 1, block: int = 32, **options: object) -> object:
    report = emulator.load(text).launch("k", grid, block, list(args), **options)
    report.raise_for_findings()
    return report


def lanes(body: str, block: int = 32, **options: object) -> np.ndarray:
    out = np.zeros(block, np.uint32)
    run(kernel(body + STORE, 1), out, block=block, **options)
    return out


def test_shuffles() -> None:
    lane = np.arange(32)
    got = lanes("add.u32 %r1, %tid, 100; shfl.sync.bfly.b32 %r0, %r1, 5, 31, -1;")
    assert np.array_equal(got, (lane ^ 5) + 100)
    got = lanes("add.u32 %r1, %tid, 100; shfl.sync.idx.b32 %r0, %r1, 3, 0x1C1F, -1;")  # segments of 4 lanes... of 8
    width = 32 - 0x1C
    assert np.array_equal(got, lane // width * width + 3 + 100)
    got = lanes("shfl.sync.up.b32 %r0|%q0, %tid, 3, 0, -1; selp.u32 %r1, 1000, 0, %q0; add.u32 %r0, %r0, %r1;")
    assert np.array_equal(got, np.where(lane >= 3, lane - 3 + 1000, lane))
    got = lanes("shfl.sync.down.b32 %r0|%q0, %tid, 4, 31, -1; selp.u32 %r1, 1000, 0, %q0; add.u32 %r0, %r0, %r1;")
    assert np.array_equal(got, np.where(lane < 28, lane + 4 + 1000, lane))


def test_votes_matches_reductions() -> None:
    lane = np.arange(32)
    odd = "and.b32 %r1, %tid, 1; setp.eq.u32 %q0, %r1, 1;"
    assert np.all(lanes(odd + "vote.sync.ballot.b32 %r0, %q0, -1;") == 0xAAAAAAAA)
    assert np.all(lanes(odd + "vote.sync.any.pred %q1, %q0, -1; selp.u32 %r0, 1, 0, %q1;") == 1)
    assert np.all(lanes(odd + "vote.sync.all.pred %q1, %q0, -1; selp.u32 %r0, 1, 0, %q1;") == 0)
    assert np.all(lanes(odd + "vote.sync.all.pred %q1, !%q2, -1; selp.u32 %r0, 1, 0, %q1;".replace("%q2", "%q0")) == 0)
    got = lanes("shr.u32 %r1, %tid, 3; match.any.sync.b32 %r0, %r1, -1;")
    assert np.array_equal(got, 0xFF << (lane // 8 * 8))
    assert np.all(lanes("mov.u32 %r1, 5; match.all.sync.b32 %r0|%q0, %r1, -1;") == 0xFFFFFFFF)
    assert np.all(lanes("redux.sync.add.u32 %r0, %tid, -1;") == lane.sum())
    assert np.all(lanes("sub.s32 %r1, %tid, 7; redux.sync.min.s32 %r0, %r1, -1;").astype(np.int32) == -7)
    assert np.all(lanes("redux.sync.xor.b32 %r0, %tid, -1;") == np.bitwise_xor.reduce(lane))
    got = lanes("elect.sync _|%q0, -1; selp.u32 %r0, 1, 0, %q0;")
    assert list(got) == [1] + [0] * 31


def test_partial_masks_and_activemask() -> None:
    body = """
        setp.lt.u32 %q0, %tid, 8;
        mov.u32 %r0, 0;
        @!%q0 bra REST;
        activemask.b32 %r2;
        shfl.sync.bfly.b32 %r1, %tid, 1, 31, 0xFF;
        shl.b32 %r1, %r1, 8;
        or.b32 %r0, %r1, %r2;
        REST:
        """
    lane = np.arange(32)
    assert np.array_equal(lanes(body), np.where(lane < 8, (lane ^ 1) << 8 | 0xFF, 0))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transpose", [False, True])
def test_matrix_loads_and_stores(count: int, transpose: bool) -> None:
    registers = ", ".join(f"%r{i}" for i in range(count))
    t = ".trans" if transpose else ""
    text = kernel(
        f"""
        mov.u32 %r20, tile;
        shl.b32 %r21, %tid, 4;
        add.s32 %r22, %r20, %r21;
        mul.wide.u32 %d0, %tid, 16;
        add.s64 %d1, %p1, %d0;
        ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%d1];
        st.shared.v4.b32 [%r22], {{%r10, %r11, %r12, %r13}};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x{count}{t}.shared.b16 {{{registers}}}, [%r22];
        bar.sync 0;
        stmatrix.sync.aligned.m8n8.x{count}.shared.b16 [%r22], {{{registers}}};
        bar.sync 0;
        ld.shared.v4.b32 {{%r10, %r11, %r12, %r13}}, [%r22];
        add.s64 %d1, %p0, %d0;
        st.global.v4.b32 [%d1], {{%r10, %r11, %r12, %r13}};
        """,
        declarations=".shared .align 16 .b8 tile[512];",
    )
    x = RNG.integers(0, 2**16, (4, 8, 8)).astype(np.uint16)
    out = np.zeros_like(x)
    run(text, out, x)
    want = x.copy()
    if transpose:
        want[:count] = x[:count].transpose(0, 2, 1)
    assert np.array_equal(out, want)


def test_movmatrix() -> None:
    text = kernel(
        """mad.wide.u32 %at, %tid, 4, %p1; ld.global.b32 %r1, [%at];
        movmatrix.sync.aligned.m8n8.trans.b16 %r0, %r1;"""
        + STORE
    )
    x = RNG.integers(0, 2**16, (8, 8)).astype(np.uint16)
    out = np.zeros_like(x)
    run(text, out, x)
    assert np.array_equal(out, x.T)


def test_barrier_reductions_and_named_barriers() -> None:
    body = """
        setp.gt.u32 %q0, %tid, 9;
        bar.red.popc.u32 %r1, 0, %q0;
        bar.red.and.pred %q1, 1, %q0;
        bar.red.or.pred %q2, 1, !%q0;
        selp.u32 %r2, 1000, 0, %q1;
        selp.u32 %r3, 10000, 0, %q2;
        add.u32 %r0, %r1, %r2;
        add.u32 %r0, %r0, %r3;
        """
    assert np.all(lanes(body, block=96) == 86 + 10000)


def test_producer_consumer_with_counted_barriers() -> None:
    """Warp 0 produces and only arrives, warp 1 waits for 64 threads; and back again."""
    text = kernel(
        """
        mov.u32 %r5, cell;
        and.b32 %r6, %tid, 31;
        shl.b32 %r7, %r6, 2;
        add.s32 %r5, %r5, %r7;
        setp.ge.u32 %q0, %tid, 32;
        mov.u32 %r1, 0;
        mov.u32 %r0, 0;
        LOOP:
        @%q0 bra CONSUME;
        add.u32 %r2, %r1, %tid;
        st.shared.u32 [%r5], %r2;
        bar.arrive 1, 64;
        bar.sync 2, 64;
        bra.uni NEXT;
        CONSUME:
        bar.sync 1, 64;
        ld.shared.u32 %r3, [%r5];
        add.u32 %r0, %r0, %r3;
        bar.arrive 2, 64;
        NEXT:
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %q1, %r1, 5;
        @%q1 bra LOOP;
        """
        + STORE,
        1,
        declarations=".shared .align 4 .b8 cell[128];",
    )
    for seed in range(4):
        out = np.zeros(64, np.uint32)
        run(text, out, block=64, schedule="random", seed=seed)
        assert np.array_equal(out[32:], 5 * np.arange(32) + 10)


def test_loops_of_different_length_meet_again() -> None:
    """After a loop with a trip count and an early break of its own for every lane, all lanes shuffle together."""
    body = """
        mov.u32 %r1, 0;
        mov.u32 %r2, 0;
        LOOP:
        setp.eq.u32 %q0, %r1, 20;
        @%q0 bra OUT;
        add.u32 %r2, %r2, %r1;
        and.b32 %r3, %r1, 1;
        setp.eq.u32 %q2, %r3, 0;
        @%q2 bra EVEN;
        add.u32 %r2, %r2, 100;
        EVEN:
        add.u32 %r1, %r1, 1;
        setp.le.u32 %q1, %r1, %tid;
        @%q1 bra LOOP;
        OUT:
        shfl.sync.bfly.b32 %r0, %r2, 1, 31, -1;
        """
    out = np.zeros(32, np.uint32)
    report = run(kernel(body + STORE, 1), out)
    trips = np.minimum(np.arange(32) + 1, 20)
    total = np.array([sum(i + 100 * (i & 1) for i in range(t)) for t in trips])
    assert np.array_equal(out, total[np.arange(32) ^ 1])
    assert report.counters["by_class"]["warp"] == 1, "the warp has met again before the shuffle"
    assert report.counters["divergent_branches"] > 0


def test_lanes_spinning_on_one_another() -> None:
    """A lock taken and given by lanes of one warp: needs threads that go on while others spin."""
    text = kernel(
        """
        SPIN:
        atom.global.cas.b32 %r1, [%p0], 0, 1;
        setp.ne.u32 %q0, %r1, 0;
        @%q0 bra SPIN;
        ld.volatile.global.u32 %r2, [%p1];
        add.u32 %r2, %r2, 1;
        st.volatile.global.u32 [%p1], %r2;
        membar.gl;
        atom.global.exch.b32 %r3, [%p0], 0;
        """
    )
    lock, count = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    run(text, lock, count, block=64)
    assert count[0] == 64


@pytest.mark.parametrize("seed", range(3))
def test_random_schedules_give_one_result(seed: int) -> None:
    body = """
        mov.u32 %r5, cell;
        shl.b32 %r7, %tid, 2;
        add.s32 %r6, %r5, %r7;
        mov.u32 %r0, %tid;
        mov.u32 %r1, 0;
        LOOP:
        st.shared.u32 [%r6], %r0;
        bar.sync 0;
        xor.b32 %r8, %r7, 252;
        add.s32 %r8, %r8, %r5;
        ld.shared.u32 %r9, [%r8];
        mad.lo.u32 %r0, %r9, 3, %r0;
        bar.sync 0;
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %q0, %r1, 8;
        @%q0 bra LOOP;
        """
    out = np.zeros(64, np.uint32)
    run(
        kernel(body + STORE, 1, declarations=".shared .align 4 .b8 cell[256];"),
        out,
        block=64,
        schedule="random",
        seed=seed,
    )
    want = np.arange(64, dtype=np.uint32)
    for _ in range(8):
        want = want[np.arange(64) ^ 63] * np.uint32(3) + want
    assert np.array_equal(out, want)


COOPERATIVE = """
#include <cooperative_groups.h>
namespace cg = cooperative_groups;
extern "C" __global__ void k(const float* x, float* out, int n) {
    __shared__ float partial[32];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
    for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(~0u, sum, d);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.f;
        for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(~0u, sum, d);
        if (threadIdx.x == 0) out[blockIdx.x] = sum;
    }
}
"""


@needs_nvcc
def test_compiled_block_reduction() -> None:
    module = emulator.load(compile_cuda(COOPERATIVE))
    x = RNG.standard_normal((5, 1000)).astype(np.float32)
    out = np.zeros(5, np.float32)
    module.launch("k", 5, 256, [x, out, 1000], schedule="random", seed=1).raise_for_findings()
    assert np.allclose(out, x.sum(1), atol=1e-4)
