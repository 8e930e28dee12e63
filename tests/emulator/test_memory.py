"""Loads and stores in every state space, atomics, asynchronous copies and mbarriers."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import compile_cuda, emulator, kernel, needs_nvcc

RNG = np.random.default_rng(2)


def run(text: str, *args: np.ndarray, grid: int = 1, block: int = 32, **options: object) -> object:
    report = emulator.load(text).launch("k", grid, block, list(args), **options)
    report.raise_for_findings()
    return report


def test_arguments_that_lie_within_each_other() -> None:
    """A part of an array and all of it: what is behind the part still belongs to the whole."""
    x = RNG.integers(0, 100, 32, dtype=np.uint32)
    x.flags.writeable = False
    out = np.zeros(32, np.uint32)
    text = kernel(
        """mad.wide.u32 %at, %tid, 4, %p1;
        ld.global.u32 %r0, [%at];
        ld.global.u32 %r1, [%p2];
        add.u32 %r0, %r0, %r1;
        mad.wide.u32 %at, %tid, 4, %p0;
        st.global.u32 [%at], %r0;""",
        parameters=3,
    )
    run(text, out, x, x[8:16])
    assert np.array_equal(out, x + x[8])


@pytest.mark.parametrize(
    ("kind", "register"),
    [
        ("u8", "%r"),
        ("s8", "%r"),
        ("u16", "%r"),
        ("s16", "%r"),
        ("s32", "%d"),
        ("u32", "%d"),
        ("s8", "%h"),
        ("u8", "%d"),
    ],
)
def test_loads_extend(kind: str, register: str) -> None:
    dtype = np.dtype(f"{'u' if kind[0] == 'u' else ''}int{kind[1:]}")
    wide = {"%r": np.int32, "%d": np.int64, "%h": np.int16}[register]
    bits = 8 * np.dtype(wide).itemsize
    x = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, 32, dtype=dtype, endpoint=True)
    out = np.zeros(32, wide)
    text = kernel(
        f"""mad.wide.u32 %at, %tid, {dtype.itemsize}, %p1;
        ld.global.{kind} {register}0, [%at];
        mad.wide.u32 %at, %tid, {bits // 8}, %p0;
        st.global.b{bits} [%at], {register}0;"""
    )
    run(text, out, x)
    assert np.array_equal(out, x.astype(wide))


def test_vectors_and_narrow_stores() -> None:
    x = RNG.integers(0, 2**32, (32, 4), dtype=np.uint32)
    out, low = np.zeros_like(x), np.zeros(32, np.uint16)
    text = kernel(
        """mad.wide.u32 %at, %tid, 16, %p1;
        ld.global.v4.u32 {%r0, %r1, _, %r3}, [%at];
        ld.global.nc.L1::no_allocate.v2.f32 {%f0, %f1}, [%at+8];
        mov.b32 %r2, %f0;
        mad.wide.u32 %at, %tid, 16, %p0;
        st.global.v4.b32 [%at], {%r3, %r2, 7, %r0};
        mad.wide.u32 %at, %tid, 2, %p2;
        st.global.u16 [%at], %r1;""",
        3,
    )
    run(text, out, x, low)
    assert np.array_equal(out, np.stack([x[:, 3], x[:, 2], np.full(32, 7, np.uint32), x[:, 0]], 1))
    assert np.array_equal(low, x[:, 1].astype(np.uint16))


def test_shared_static_dynamic_and_generic() -> None:
    text = kernel(
        """
        mov.u32 %r0, fixed;
        shl.b32 %r1, %tid, 2;
        add.s32 %r2, %r0, %r1;
        st.shared.u32 [%r2], %tid;
        mov.u64 %d0, moving;
        cvta.shared.u64 %d1, %d0;
        mul.wide.u32 %d2, %tid, 4;
        add.s64 %d1, %d1, %d2;
        isspacep.shared %q0, %d1;
        isspacep.global %q1, %p0;
        add.u32 %r3, %tid, 100;
        st.u32 [%d1], %r3;
        bar.sync 0;
        sub.s32 %r4, 124, %r1;
        add.s32 %r5, %r0, %r4;
        ld.shared.u32 %r6, [%r5];
        cvta.to.shared.u64 %d3, %d1;
        ld.shared.u32 %r7, [%d3];
        add.u32 %r6, %r6, %r7;
        selp.u32 %r6, %r6, 0, %q0;
        selp.u32 %r6, %r6, 0, %q1;
        add.s64 %at, %p0, %d2;
        st.u32 [%at], %r6;
        """,
        1,
        declarations=".shared .align 4 .b8 fixed[128];\n.extern .shared .align 16 .b8 moving[];",
    )
    out = np.zeros(32, np.uint32)
    run(text, out, shared_bytes=128)
    assert np.array_equal(out, 31 - np.arange(32) + np.arange(32) + 100)


def test_globals_and_constants() -> None:
    text = kernel(
        """
        mul.wide.u32 %d0, %tid, 4;
        mov.u64 %d1, table;
        add.s64 %d1, %d1, %d0;
        ld.const.f32 %f0, [%d1];
        ld.const.f32 %f1, [table+4];
        add.f32 %f0, %f0, %f1;
        ld.global.u64 %d2, [pointer];
        atom.global.add.u32 %r0, [%d2], 1;
        add.s64 %at, %p0, %d0;
        st.global.f32 [%at], %f0;
        """,
        1,
        declarations=".const .align 4 .f32 table[4] = {0f3F800000, 2.0, 0f40400000, 4.5};\n"
        ".global .align 4 .u32 counter = 5;\n.global .align 8 .u64 pointer = generic(counter);",
    )
    out = np.zeros(4, np.float32)
    module = emulator.load(text)
    for launches in (1, 2):
        module.launch("k", 1, 4, [out]).raise_for_findings()
        address, size = module.global_variable("counter")
        assert size == 4
        import ctypes

        assert ctypes.c_uint32.from_address(address).value == 5 + 4 * launches
    assert np.array_equal(out, np.array([3, 4, 5, 6.5], np.float32))


@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics(space: str) -> None:
    x = RNG.integers(-1000, 1000, 256).astype(np.int32)
    ops = [("add.u32", lambda v: v.sum()), ("min.s32", lambda v: min(v.min(), 0)), ("max.s32", lambda v: max(v.max(), 0)),
           ("xor.b32", lambda v: np.bitwise_xor.reduce(v)), ("or.b32", lambda v: np.bitwise_or.reduce(v))]  # fmt: skip
    for name, want in ops:
        if space == "global":
            body = f"red.global.{name} [%p0], %r0;"
        else:
            body = f"""setp.eq.u32 %q0, %tid, 0;
            @%q0 st.shared.u32 [cell], 0;
            bar.sync 0;
            atom.shared.{name} %r2, [cell], %r0;
            bar.sync 0;
            ld.shared.u32 %r3, [cell];
            @%q0 st.global.u32 [%p0], %r3;"""
        text = kernel(
            f"mad.lo.u32 %r9, %cta, 64, %tid;\nmad.wide.u32 %at, %r9, 4, %p1;\nld.global.u32 %r0, [%at];\n{body}",
            declarations=".shared .align 4 .u32 cell;",
        )
        out = np.zeros(1, np.int32)
        if space == "global":
            run(text, out, x, grid=4, block=64)
            assert out[0] == want(x), name
        else:
            run(text, out, x, grid=1, block=64)
            assert out[0] == want(x[:64]), name


def test_compare_and_swap_loop() -> None:
    """A maximum of floats by compare-and-swap, lanes of one warp against one another."""
    text = kernel(
        """
        mad.wide.u32 %at, %tid, 4, %p1;
        ld.global.f32 %f0, [%at];
        ld.global.b32 %r0, [%p0];
        AGAIN:
        mov.b32 %f1, %r0;
        max.f32 %f2, %f1, %f0;
        mov.b32 %r1, %f2;
        atom.global.cas.b32 %r2, [%p0], %r0, %r1;
        setp.ne.b32 %q0, %r2, %r0;
        mov.b32 %r0, %r2;
        @%q0 bra AGAIN;
        """
    )
    x = RNG.standard_normal(96).astype(np.float32)
    out = np.full(1, -10, np.float32)
    run(text, out, x, block=96)
    assert out[0] == x.max()


def test_float_atomics() -> None:
    text = kernel(
        """
        red.global.add.f32 [%p0], 0f3F800000;
        atom.global.add.noftz.f16x2 %r0, [%p1], 0x3C003C00;
        mov.u32 %r1, 0x3F803F80;
        red.global.add.noftz.bf16x2 [%p1+4], %r1;
        """
    )
    out, halves = np.zeros(1, np.float32), np.zeros(4, np.uint16)
    run(text, out, halves, block=64)
    assert out[0] == 64
    assert list(halves[:2].view(np.float16)) == [64, 64]
    assert list((halves[2:].astype(np.uint32) << 16).view(np.float32)) == [64, 64]


PIPELINE = """
        mov.u32 %r0, buffer;
        shl.b32 %r1, %tid, 4;
        add.s32 %r2, %r0, %r1;
        mul.wide.u32 %d0, %tid, 16;
        add.s64 %d1, %p1, %d0;
        cp.async.cg.shared.global [%r2], [%d1], 16;
        cp.async.commit_group;
        cp.async.ca.shared.global [%r2+512], [%d1+512], 16, %r9;
        cp.async.commit_group;
        cp.async.wait_group WAIT;
        bar.sync 0;
        xor.b32 %r3, %r1, 16;
        add.s32 %r3, %r0, %r3;
        ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r3+AT];
        add.s64 %at, %p0, %d0;
        st.global.v4.u32 [%at], {%r4, %r5, %r6, %r7};
"""


def test_asynchronous_copies() -> None:
    x = RNG.integers(0, 2**32, (64, 4), dtype=np.uint32)
    swap = np.arange(32) ^ 1
    for wait, at, want in ((1, 0, x[:32][swap]), (0, 512, x[32:][swap] * np.array([1, 1, 0, 0], np.uint32))):
        text = kernel(
            "mov.u32 %r9, 8;" + PIPELINE.replace("WAIT", str(wait)).replace("AT]", f"{at}]"),
            declarations=".shared .align 16 .b8 buffer[1024];",
        )
        out = np.zeros((32, 4), np.uint32)
        run(text, out, x)
        assert np.array_equal(out, want)


def test_copies_of_different_sizes_are_one_request() -> None:
    """Every other lane asks for half of its 16 bytes: of all sectors, once."""
    text = kernel(
        "and.b32 %r9, %tid, 1; shl.b32 %r9, %r9, 3; sub.s32 %r9, 16, %r9;" + PIPELINE.replace("WAIT", "0").replace("AT]", "512]"),
        declarations=".shared .align 16 .b8 buffer[1024];",
    )  # fmt: skip
    room = np.zeros(2 * 64 * 4, np.uint32)
    x = room[-(room.ctypes.data // 4) % 8 :][: 64 * 4]
    counters = run(text, np.zeros((32, 4), np.uint32), x).counters  # type: ignore[attr-defined]
    assert counters["global_async"] == {"bytes": 512 + 384, "sectors": 32, "ideal_sectors": 16 + 12}


def test_mbarrier_orders_producer_and_consumer() -> None:
    """Warp 0 fills shared memory with asynchronous copies that arrive on an mbarrier, warp 1 waits for its phase."""
    text = kernel(
        """
        mov.u32 %r0, buffer;
        mov.u32 %r8, gate;
        setp.eq.u32 %q0, %tid, 0;
        @%q0 mbarrier.init.shared.b64 [%r8], 32;
        bar.sync 0;
        setp.ge.u32 %q1, %tid, 32;
        and.b32 %r10, %tid, 31;
        shl.b32 %r1, %r10, 4;
        add.s32 %r2, %r0, %r1;
        mul.wide.u32 %d0, %r10, 16;
        @%q1 bra CONSUMER;
        add.s64 %d1, %p1, %d0;
        cp.async.cg.shared.global [%r2], [%d1], 16;
        cp.async.mbarrier.arrive.noinc.shared.b64 [%r8];
        bra.uni DONE;
        CONSUMER:
        mbarrier.try_wait.parity.shared.b64 %q2, [%r8], 0;
        @!%q2 bra CONSUMER;
        ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r2];
        add.s64 %at, %p0, %d0;
        st.global.v4.u32 [%at], {%r4, %r5, %r6, %r7};
        DONE:
        """,
        declarations=".shared .align 16 .b8 buffer[512];\n.shared .align 8 .b64 gate;",
    )
    x = RNG.integers(0, 2**32, (32, 4), dtype=np.uint32)
    for seed in range(4):
        out = np.zeros_like(x)
        run(text, out, x, block=64, schedule="random", seed=seed)
        assert np.array_equal(out, x)


CUDA_SPACES = """
#include <cstdint>
struct Problem { const float* in; float* out; int n; float scale; };
__constant__ float weights[4] = {1, 2, 3, 4};
__device__ __noinline__ float polynomial(float x, int degree) {
    float value = 0;
    for (int i = 0; i < degree; ++i) value = value * x + weights[i & 3];
    return value;
}
extern "C" __global__ void k(__grid_constant__ const Problem p) {
    float history[8];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.n) return;
    for (int j = 0; j < 8; ++j) history[j] = p.in[(i + j) % p.n];
    float sum = 0;
    for (int j = 0; j < i % 8 + 1; ++j) sum += history[(j * 3 + i) & 7];
    switch (i & 3) {
        case 0: sum += polynomial(sum, 3); break;
        case 1: sum -= 1; break;
        case 2: sum *= p.scale; break;
        default: sum = -sum;
    }
    p.out[i] = sum;
}
"""


@needs_nvcc
def test_compiled_local_memory_calls_and_structs() -> None:
    import struct

    module = emulator.load(compile_cuda(CUDA_SPACES))
    n = 150
    x, out = RNG.standard_normal(n).astype(np.float32), np.zeros(n, np.float32)
    problem = struct.pack("QQif", x.ctypes.data, out.ctypes.data, n, 0.5)
    module.launch("k", 3, 64, [problem], regions=[x, out]).raise_for_findings()
    for i in range(n):
        history = [x[(i + j) % n] for j in range(8)]
        total = np.float32(sum(float(history[(j * 3 + i) & 7]) for j in range(i % 8 + 1)))
        want = [total + ((0 * total + 1) * total + 2) * total + 3, total - 1, total * 0.5, -total][i & 3]
        assert abs(out[i] - want) < 1e-4 * max(1, abs(want))
