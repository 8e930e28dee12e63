"""mma.sync in every shape and type against matrix products."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import emulator, kernel

RNG = np.random.default_rng(4)
LANE = np.arange(32)
GROUP, MEMBER = LANE // 4, LANE % 4


def fragments_a(a: np.ndarray, per_word: int) -> np.ndarray:
    """Registers of A (m x k), as the PTX ISA lays them out: lane, register, element."""
    m, k = a.shape
    width = 4 * per_word
    columns = MEMBER[:, None] * per_word + np.arange(per_word)
    return np.stack(
        [a[GROUP[:, None] + 8 * row, columns + width * step] for step in range(k // width) for row in range(m // 8)], 1
    )


def fragments_b(b: np.ndarray, per_word: int) -> np.ndarray:
    """Registers of B (k x 8)."""
    return fragments_a(np.ascontiguousarray(b.T), per_word)


def mma(instruction: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, per_word: int) -> np.ndarray:
    """Runs one instruction for one warp; a, b already in their storage types, c float32, int32 or float16 (m x 8)."""
    m = a.shape[0]
    words_a = np.ascontiguousarray(fragments_a(a, per_word)).view(np.uint32).reshape(32, -1)
    words_b = np.ascontiguousarray(fragments_b(b, per_word)).view(np.uint32).reshape(32, -1)
    columns = MEMBER[:, None] * 2 + np.arange(2)
    words_c = np.stack([c[GROUP[:, None] + 8 * row, columns] for row in range(m // 8)], 1)
    words_c = np.ascontiguousarray(words_c).reshape(32, -1).view(np.uint32)
    na, nb, nc = words_a.shape[1], words_b.shape[1], words_c.shape[1]
    lines = []
    for first, count, pointer in ((0, na, 1), (10, nb, 2), (20, nc, 3)):
        for i in range(count):
            lines.append(
                f"mad.wide.u32 %at, %tid, {4 * count}, %p{pointer}; ld.global.b32 %r{first + i}, [%at+{4 * i}];"
            )
    names = [
        ", ".join(f"%r{first + i}" for i in range(count)) for first, count in ((30, nc), (0, na), (10, nb), (20, nc))
    ]
    lines.append(instruction + " " + ", ".join("{" + n + "}" for n in names) + ";")
    lines += [f"mad.wide.u32 %at, %tid, {4 * nc}, %p0; st.global.b32 [%at+{4 * i}], %r{30 + i};" for i in range(nc)]
    out = np.zeros_like(words_c)
    module = emulator.load(kernel("\n".join(lines), 4))
    module.launch("k", 1, 32, [out, words_a, words_b, words_c]).raise_for_findings()
    d = np.zeros_like(c)
    values = out.view(c.dtype).reshape(32, m // 8, 2)
    for row in range(m // 8):
        d[GROUP[:, None] + 8 * row, columns] = values[:, row]
    return d


def round_bits(x: np.ndarray, kept: int) -> np.ndarray:
    """float32 values with the low bits cleared: exactly representable in a shorter format."""
    return (x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - kept) & 0xFFFFFFFF)).view(np.float32)


def chain(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The documented order: from c, in the order of k, rounded to float32 after every product."""
    d = c.astype(np.float32)
    for k in range(a.shape[1]):
        exact = a[:, k : k + 1].astype(np.float64) * b[k : k + 1, :].astype(np.float64)
        d = (d.astype(np.float64) + exact).astype(np.float32)
    return d


@pytest.mark.parametrize("k", [8, 16])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_half_inputs(kind: str, k: int) -> None:
    a, b, c = (round_bits(RNG.standard_normal(s), 7) for s in ((16, k), (k, 8), (16, 8)))
    store = (
        (lambda x: x.astype(np.float16)) if kind == "f16" else (lambda x: (x.view(np.uint32) >> 16).astype(np.uint16))
    )
    got = mma(f"mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32", store(a), store(b), c, 2)
    assert np.array_equal(got, chain(a, b, c))


@pytest.mark.parametrize("k", [8, 16])
def test_half_accumulators(k: int) -> None:
    a, b, c = (RNG.standard_normal(s).astype(np.float16) for s in ((16, k), (k, 8), (16, 8)))
    got = mma(f"mma.sync.aligned.m16n8k{k}.row.col.f16.f16.f16.f16", a, b, c, 2)
    assert np.array_equal(got, chain(a, b, c).astype(np.float16))


@pytest.mark.parametrize("k", [4, 8])
def test_tf32(k: int) -> None:
    a, b, c = (round_bits(RNG.standard_normal(s), 10) for s in ((16, k), (k, 8), (16, 8)))
    got = mma(f"mma.sync.aligned.m16n8k{k}.row.col.f32.tf32.tf32.f32", a, b, c, 1)
    assert np.array_equal(got, chain(a, b, c))


@pytest.mark.parametrize(("m", "k"), [(16, 32), (16, 16), (8, 16)])
@pytest.mark.parametrize(("kind_a", "kind_b"), [("s8", "s8"), ("u8", "s8"), ("u8", "u8"), ("s8", "u8")])
def test_integers(m: int, k: int, kind_a: str, kind_b: str) -> None:
    types = {"s8": np.int8, "u8": np.uint8}
    a = RNG.integers(np.iinfo(types[kind_a]).min, 128, (m, k)).astype(types[kind_a])
    b = RNG.integers(np.iinfo(types[kind_b]).min, 128, (k, 8)).astype(types[kind_b])
    c = RNG.integers(-(2**31), 2**31 - 1, (m, 8)).astype(np.int32)
    exact = a.astype(np.int64) @ b.astype(np.int64) + c
    name = f"mma.sync.aligned.m{m}n8k{k}.row.col"
    assert np.array_equal(mma(f"{name}.s32.{kind_a}.{kind_b}.s32", a, b, c, 4), exact.astype(np.int32))
    got = mma(f"{name}.satfinite.s32.{kind_a}.{kind_b}.s32", a, b, c, 4)
    assert np.array_equal(got, np.clip(exact, -(2**31), 2**31 - 1))


def float8(bits: np.ndarray, exponent_bits: int, mantissa_bits: int, bias: int) -> np.ndarray:
    sign = np.where(bits & 0x80, -1.0, 1.0)
    exponent, mantissa = (bits & 0x7F) >> mantissa_bits, bits & ((1 << mantissa_bits) - 1)
    normal = (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent.astype(float) - bias)
    return sign * np.where(exponent == 0, mantissa / 2**mantissa_bits * 2.0 ** (1 - bias), normal)


@pytest.mark.parametrize(("kind_a", "kind_b"), [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("e5m2", "e5m2")])
def test_eight_bit_floats(kind_a: str, kind_b: str) -> None:
    decode = {"e4m3": (4, 3, 7), "e5m2": (5, 2, 15)}
    a = (RNG.integers(0, 0x60, (16, 32)) | RNG.integers(0, 2, (16, 32)) << 7).astype(np.uint8)
    b = (RNG.integers(0, 0x60, (32, 8)) | RNG.integers(0, 2, (32, 8)) << 7).astype(np.uint8)
    c = RNG.standard_normal((16, 8)).astype(np.float32)
    got = mma(f"mma.sync.aligned.m16n8k32.row.col.f32.{kind_a}.{kind_b}.f32", a, b, c, 4)
    assert np.array_equal(got, chain(float8(a, *decode[kind_a]), float8(b, *decode[kind_b]), c))


@pytest.mark.parametrize(
    "instruction",
    [
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f0, %f1}, {%r0}, {%r1}, {%f0, %f1}",
        "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r0}, [%p0]",
        "wgmma.fence.sync.aligned",
        "mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%f0}, {%r0}, {%r1}, {%f0}, %r0, 0x0",
    ],
)
def test_unknown_shapes_are_refused_by_name_and_line(instruction: str) -> None:
    text = kernel(instruction + "; // here", 1)
    line = next(i for i, content in enumerate(text.splitlines(), 1) if "// here" in content)
    with pytest.raises(NotImplementedError, match=f"line {line}.*{instruction.split('.')[0]}"):
        emulator.load(text)
