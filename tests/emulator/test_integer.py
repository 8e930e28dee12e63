"""Integer and logic instructions against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import apply, emulator, kernel

RNG = np.random.default_rng(0)
N = 64


def numbers(kind: str) -> np.ndarray:
    dtype = {"u": np.uint64, "s": np.int64}[kind[0]]
    info = np.iinfo(f"{'u' if kind[0] == 'u' else ''}int{kind[1:]}")
    values = RNG.integers(info.min, info.max, N, dtype=dtype, endpoint=True)
    values[:6] = [info.min, info.max, 0, 1, info.max // 2, info.max - 1]
    return values.astype(info.dtype)


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_arithmetic(kind: str) -> None:
    x, y = numbers(kind), RNG.permutation(numbers(kind))
    with np.errstate(over="ignore"):
        assert np.array_equal(apply(f"add.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x + y)
        assert np.array_equal(apply(f"sub.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x - y)
        assert np.array_equal(apply(f"mul.lo.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x * y)
        z = RNG.permutation(x)
        got = apply(f"mad.lo.{kind} %res, %a, %b, %c;", kind, (kind, x), (kind, y), (kind, z))
        assert np.array_equal(got, x * y + z)
    high = np.array([(int(a) * int(b)) >> (8 * x.itemsize) for a, b in zip(x, y, strict=True)], object)
    assert list(apply(f"mul.hi.{kind} %res, %a, %b;", kind, (kind, x), (kind, y))) == list(high)
    assert np.array_equal(apply(f"min.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), np.minimum(x, y))
    assert np.array_equal(apply(f"max.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), np.maximum(x, y))
    y = np.where(y == 0, 3, y).astype(x.dtype)
    y = np.where(y == -1, 5, y).astype(x.dtype) if kind[0] == "s" else y
    quotient = [abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(x, y, strict=True)]
    assert list(apply(f"div.{kind} %res, %a, %b;", kind, (kind, x), (kind, y))) == quotient
    remainder = [int(a) - q * int(b) for a, b, q in zip(x, y, quotient, strict=True)]
    assert list(apply(f"rem.{kind} %res, %a, %b;", kind, (kind, x), (kind, y))) == remainder


@pytest.mark.parametrize(("kind", "wide"), [("u16", "u32"), ("s16", "s32"), ("u32", "u64"), ("s32", "s64")])
def test_wide_products(kind: str, wide: str) -> None:
    x, y, z = numbers(kind), RNG.permutation(numbers(kind)), numbers(wide)
    product = x.astype(z.dtype) * y.astype(z.dtype)
    assert np.array_equal(apply(f"mul.wide.{kind} %res, %a, %b;", wide, (kind, x), (kind, y)), product)
    with np.errstate(over="ignore"):
        got = apply(f"mad.wide.{kind} %res, %a, %b, %c;", wide, (kind, x), (kind, y), (wide, z))
        assert np.array_equal(got, product + z)


def test_saturation_and_sad() -> None:
    x, y = numbers("s32"), RNG.permutation(numbers("s32"))
    wide = x.astype(np.int64) + y
    got = apply("add.sat.s32 %res, %a, %b;", "s32", ("s32", x), ("s32", y))
    assert np.array_equal(got, np.clip(wide, -(2**31), 2**31 - 1))
    u, v = numbers("u32"), RNG.permutation(numbers("u32"))
    got = apply("sad.u32 %res, %a, %b, %a;", "u32", ("u32", u), ("u32", v))
    assert np.array_equal(got, (np.abs(u.astype(np.int64) - v) + u).astype(np.uint32))


@pytest.mark.parametrize("bits", [32, 64])
def test_bits(bits: int) -> None:
    kind = f"u{bits}"
    x, y = numbers(kind), RNG.permutation(numbers(kind))
    count = [int(v).bit_count() for v in x]
    assert list(apply(f"popc.b{bits} %res, %a;", "u32", (kind, x))) == count
    assert list(apply(f"clz.b{bits} %res, %a;", "u32", (kind, x))) == [bits - int(v).bit_length() for v in x]
    assert list(apply(f"brev.b{bits} %res, %a;", kind, (kind, x))) == [
        int(format(int(v), f"0{bits}b")[::-1], 2) for v in x
    ]
    top = [int(v).bit_length() - 1 if v else 2**32 - 1 for v in x]
    assert list(apply(f"bfind.u{bits} %res, %a;", "u32", (kind, x))) == top
    assert np.array_equal(apply(f"and.b{bits} %res, %a, %b;", kind, (kind, x), (kind, y)), x & y)
    assert np.array_equal(apply(f"or.b{bits} %res, %a, %b;", kind, (kind, x), (kind, y)), x | y)
    assert np.array_equal(apply(f"xor.b{bits} %res, %a, %b;", kind, (kind, x), (kind, y)), x ^ y)
    assert np.array_equal(apply(f"not.b{bits} %res, %a;", kind, (kind, x)), ~x)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_shifts(bits: int) -> None:
    n = RNG.integers(0, 80, N).astype(np.uint32)
    x = numbers(f"u{bits}")
    mask = (1 << bits) - 1
    left = [(int(v) << int(s)) & mask for v, s in zip(x, n, strict=True)]
    assert list(apply(f"shl.b{bits} %res, %a, %b;", f"u{bits}", (f"u{bits}", x), ("u32", n))) == left
    right = [int(v) >> int(s) for v, s in zip(x, n, strict=True)]
    assert list(apply(f"shr.u{bits} %res, %a, %b;", f"u{bits}", (f"u{bits}", x), ("u32", n))) == right
    y = numbers(f"s{bits}")
    right = [int(v) >> int(s) for v, s in zip(y, n, strict=True)]
    assert list(apply(f"shr.s{bits} %res, %a, %b;", f"s{bits}", (f"s{bits}", y), ("u32", n))) == right


def test_fields() -> None:
    x, y = numbers("u32"), RNG.permutation(numbers("u32"))
    at, length = RNG.integers(0, 40, N).astype(np.uint32), RNG.integers(0, 40, N).astype(np.uint32)
    items = list(zip(x.tolist(), y.tolist(), at.tolist(), length.tolist(), strict=True))
    want = [(a >> p) & ((1 << n) - 1) if p < 32 else 0 for a, _, p, n in items]
    assert list(apply("bfe.u32 %res, %a, %b, %c;", "u32", ("u32", x), ("u32", at), ("u32", length))) == want

    def signed(a: int, p: int, n: int) -> int:
        sign = a >> min(p + n - 1, 31) & 1 if n else 0
        bits = [(a >> (p + i) & 1) if i < n and p + i <= 31 else sign for i in range(32)]
        return sum(b << i for i, b in enumerate(bits))

    got = apply("bfe.s32 %res, %a, %b, %c;", "u32", ("u32", x), ("u32", at), ("u32", length))
    assert list(got) == [signed(a, p, n) for a, _, p, n in items]
    want = []
    for a, b, p, n in items:
        mask = ((1 << n) - 1) << p & 0xFFFFFFFF if p < 32 else 0
        want.append((b & ~mask) | ((a << p) & mask))
    got = apply("bfi.b32 %res, %a, %b, %c, %d;", "u32", ("u32", x), ("u32", y), ("u32", at), ("u32", length))
    assert list(got) == want


def test_lop3_funnel_prmt() -> None:
    x, y, z = numbers("u32"), RNG.permutation(numbers("u32")), RNG.permutation(numbers("u32"))
    operands = [("u32", x), ("u32", y), ("u32", z)]
    assert np.array_equal(apply("lop3.b32 %res, %a, %b, %c, 0xE8;", "u32", *operands), (x & y) | (y & z) | (x & z))
    n = RNG.integers(0, 70, N).astype(np.uint32)
    both = [(int(h) << 32) | int(low) for low, h in zip(x, y, strict=True)]
    for mode in ("wrap", "clamp"):
        shift = [int(s) & 31 if mode == "wrap" else min(int(s), 32) for s in n]
        got = apply(f"shf.l.{mode}.b32 %res, %a, %b, %c;", "u32", ("u32", x), ("u32", y), ("u32", n))
        assert list(got) == [((v << s) >> 32) & 0xFFFFFFFF for v, s in zip(both, shift, strict=True)]
        got = apply(f"shf.r.{mode}.b32 %res, %a, %b, %c;", "u32", ("u32", x), ("u32", y), ("u32", n))
        assert list(got) == [(v >> s) & 0xFFFFFFFF for v, s in zip(both, shift, strict=True)]
    want = []
    for v, selector in zip(both, z, strict=True):
        parts = []
        for k in range(4):
            s = int(selector) >> (4 * k) & 15
            byte = v >> (8 * (s & 7)) & 0xFF
            parts.append((0xFF if byte & 0x80 else 0) if s & 8 else byte)
        want.append(sum(b << (8 * k) for k, b in enumerate(parts)))
    assert list(apply("prmt.b32 %res, %a, %b, %c;", "u32", *operands)) == want


def test_every_lop3_table() -> None:
    x, y, z = (np.array([v] * 32, np.uint32) for v in (0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA))
    for table in range(0, 256, 5):
        got = apply(f"lop3.b32 %res, %a, %b, %c, {table};", "u32", ("u32", x), ("u32", y), ("u32", z))
        assert got[0] & 0xFF == table


def test_dot_products() -> None:
    x, y, z = numbers("u32"), RNG.permutation(numbers("u32")), numbers("s32")
    bytes_x, bytes_y = x.view(np.int8).reshape(-1, 4).astype(np.int64), y.view(np.uint8).reshape(-1, 4).astype(np.int64)
    got = apply("dp4a.s32.u32 %res, %a, %b, %c;", "s32", ("u32", x), ("u32", y), ("s32", z))
    assert np.array_equal(got, ((bytes_x * bytes_y).sum(1) + z).astype(np.int32))


def test_carries() -> None:
    """A 128-bit sum and difference of two 64-bit halves each."""
    text = kernel(
        """
        mad.wide.u32 %at, %tid, 32, %p1;
        ld.global.v2.u64 {%d0, %d1}, [%at];
        ld.global.v2.u64 {%d2, %d3}, [%at+16];
        add.cc.u64 %d4, %d0, %d2;
        addc.u64 %d5, %d1, %d3;
        sub.cc.u64 %d6, %d0, %d2;
        subc.u64 %d7, %d1, %d3;
        mad.wide.u32 %at, %tid, 32, %p0;
        st.global.v2.u64 [%at], {%d4, %d5};
        st.global.v2.u64 [%at+16], {%d6, %d7};
        """
    )
    x = RNG.integers(0, 2**64, (32, 4), dtype=np.uint64)
    x[0] = [2**64 - 1, 0, 1, 0]
    x[1] = [0, 1, 1, 0]
    out = np.zeros_like(x)
    emulator.load(text).launch("k", 1, 32, [out, x]).raise_for_findings()
    for (a0, a1, b0, b1), got in zip(x.tolist(), out.tolist(), strict=True):
        total, less = (a0 | a1 << 64) + (b0 | b1 << 64), (a0 | a1 << 64) - (b0 | b1 << 64)
        assert got[0] | got[1] << 64 == total % 2**128
        assert got[2] | got[3] << 64 == less % 2**128


def test_predicates_with_constants() -> None:
    """nvcc flips a flag by an exclusive or with -1."""
    x = np.array([0, 1], np.uint32)
    for opcode, constant, want in (("xor", -1, [1, 0]), ("xor", 0, [0, 1]), ("and", -1, [0, 1]), ("and", 0, [0, 0]), ("or", -1, [1, 1]), ("or", 0, [0, 1])):  # fmt: skip
        text = f".reg .pred %t; setp.ne.u32 %t, %a, 0; {opcode}.pred %t, %t, {constant}; selp.u32 %res, 1, 0, %t;"
        assert list(apply(text, "u32", ("u32", x))) == want, (opcode, constant)


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64", "u16", "s16"])
def test_comparisons(kind: str) -> None:
    x, y = numbers(kind), RNG.permutation(numbers(kind))
    y[::5] = x[::5]
    table = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}
    for name, want in table.items():
        text = f".reg .pred %t; setp.{name}.{kind} %t, %a, %b; selp.u32 %res, 7, 9, %t;"
        assert np.array_equal(apply(text, "u32", (kind, x), (kind, y)) == 7, want), name
