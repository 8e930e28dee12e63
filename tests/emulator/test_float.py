"""Floating-point, half and conversion instructions against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import apply

RNG = np.random.default_rng(1)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3.4e38, 65504.0, 2.0**-24, 0.5, 1.5])


def floats(dtype: type = np.float32, n: int = 128) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = (RNG.standard_normal(n) * 2.0 ** RNG.integers(-12, 12, n)).astype(dtype)
        values[: len(SPECIAL)] = SPECIAL.astype(dtype)
    return values


def same(got: np.ndarray, want: np.ndarray) -> None:
    """Equal bits, but any NaN for a NaN."""
    nan = np.isnan(want)
    assert np.array_equal(np.isnan(got), nan)
    bits = f"u{want.dtype.itemsize}"
    assert np.array_equal(got.view(bits)[~nan], want.view(bits)[~nan])


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize(("kind", "dtype"), [("f32", np.float32), ("f64", np.float64), ("f16", np.float16)])
def test_arithmetic(kind: str, dtype: type) -> None:
    x, y = floats(dtype), RNG.permutation(floats(dtype))
    with np.errstate(all="ignore"):
        same(apply(f"add.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x + y)
        same(apply(f"sub.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x - y)
        same(apply(f"mul.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x * y)
        same(apply(f"neg.{kind} %res, %a;", kind, (kind, x)), -x)
        same(apply(f"abs.{kind} %res, %a;", kind, (kind, x)), np.abs(x))
        low, high = np.fmin(x, y), np.fmax(x, y)
        got = apply(f"min.{kind} %res, %a, %b;", kind, (kind, x), (kind, y))
        assert np.array_equal(got, low, equal_nan=True)
        got = apply(f"max.{kind} %res, %a, %b;", kind, (kind, x), (kind, y))
        assert np.array_equal(got, high, equal_nan=True)
        if kind != "f16":
            same(apply(f"div.rn.{kind} %res, %a, %b;", kind, (kind, x), (kind, y)), x / y)
            same(apply(f"sqrt.rn.{kind} %res, %a;", kind, (kind, np.abs(x))), np.sqrt(np.abs(x)))


def test_fma_rounds_once() -> None:
    x, y, z = floats(n=1024), RNG.permutation(floats(n=1024)), RNG.permutation(floats(n=1024))
    with np.errstate(all="ignore"):
        exact = x.astype(np.longdouble) * y.astype(np.longdouble) + z.astype(np.longdouble)
        same(apply("fma.rn.f32 %res, %a, %b, %c;", "f32", ("f32", x), ("f32", y), ("f32", z)), exact.astype(np.float32))
        hx, hy, hz = (v.astype(np.float16) for v in (x, y, z))
        exact = hx.astype(np.float64) * hy.astype(np.float64) + hz.astype(np.float64)
        got = apply("fma.rn.f16 %res, %a, %b, %c;", "f16", ("f16", hx), ("f16", hy), ("f16", hz))
        same(got, exact.astype(np.float16))
        bx, by, bz = to_bf16(x), to_bf16(y), to_bf16(z)
        got = apply("fma.rn.bf16 %res, %a, %b, %c;", "bf16", ("bf16", bx), ("bf16", by), ("bf16", bz))
        exact = from_bf16(bx).astype(np.longdouble) * from_bf16(by) + from_bf16(bz)
    finite = np.isfinite(exact) & (np.abs(exact) < 3e38) & (np.abs(exact) > 1e-30)
    error = np.abs(from_bf16(got).astype(np.longdouble) - exact)[finite]
    assert np.all(error <= np.abs(exact[finite]) * 2.0**-8)


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
def test_directed_rounding(mode: str) -> None:
    x, y = floats(n=512)[20:], RNG.permutation(floats(n=512))[20:]
    keep = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < 1e20) & (np.abs(y) < 1e20)
    x, y = x[keep], y[keep]
    exact = x.astype(np.longdouble) * y
    got = apply(f"mul.{mode}.f32 %res, %a, %b;", "f32", ("f32", x), ("f32", y)).astype(np.longdouble)
    if mode == "rz":
        assert np.all(np.abs(got) <= np.abs(exact))
    elif mode == "rm":
        assert np.all(got <= exact)
    else:
        assert np.all(got >= exact)
    assert np.all(np.abs(got - exact) <= np.spacing(np.abs(exact).astype(np.float32)))


def test_flush_to_zero_and_saturation() -> None:
    tiny = np.array([1e-40, -1e-40, 1e-30, 2.0] * 8, np.float32)
    one = np.ones_like(tiny)
    got = apply("mul.ftz.f32 %res, %a, %b;", "f32", ("f32", tiny), ("f32", one))
    same(got, np.array([0.0, -0.0, 1e-30, 2.0] * 8, np.float32))
    x = floats()
    got = apply("add.sat.f32 %res, %a, %b;", "f32", ("f32", x), ("f32", np.zeros_like(x)))
    assert np.array_equal(got, np.nan_to_num(np.clip(x, 0, 1), nan=0.0))


def test_approximations() -> None:
    x = (RNG.standard_normal(256) * 20).astype(np.float32)
    x[:4] = [-150.0, -127.5, 127.9, 0.0]
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        for text, operand, want, bound in (
            ("ex2.approx.f32", x, np.exp2(wide), 2.0**-22),
            ("rcp.approx.f32", x, 1 / wide, 2.0**-23),
            ("rsqrt.approx.f32", np.abs(x), 1 / np.sqrt(np.abs(wide)), 2.0**-22.4),
            ("sqrt.approx.f32", np.abs(x), np.sqrt(np.abs(wide)), 2.0**-23),
            ("lg2.approx.f32", np.abs(x), np.log2(np.abs(wide)), 2.0**-21),
            ("tanh.approx.f32", x, np.tanh(wide), 2.0**-11),
        ):
            got = apply(f"{text} %res, %a;", "f32", ("f32", operand)).astype(np.float64)
            finite = np.isfinite(want) & (np.abs(want) > 1e-38) & (np.abs(want) < 3.4e38)
            assert np.all(
                np.abs(got - want)[finite] <= bound * np.maximum(np.abs(want[finite]), 2e-1 if "lg2" in text else 0)
            ), text
        for text, function in (("sin", np.sin), ("cos", np.cos)):
            angle = np.linspace(-np.pi, np.pi, 256, dtype=np.float32)
            got = apply(f"{text}.approx.f32 %res, %a;", "f32", ("f32", angle))
            assert np.abs(got - function(angle.astype(np.float64))).max() < 2.0**-20.5
    got = apply(
        "ex2.approx.ftz.f32 %res, %a;", "f32", ("f32", np.array([np.inf, -np.inf, np.nan, 200, -200] * 4, np.float32))
    )
    assert np.array_equal(got[:5], np.array([np.inf, 0, np.nan, np.inf, 0], np.float32), equal_nan=True)


def test_packed_halves() -> None:
    x, y = floats(np.float16, 128), RNG.permutation(floats(np.float16, 128))
    with np.errstate(all="ignore"):
        got = apply("add.f16x2 %res, %a, %b;", "b32", ("b32", x.view(np.uint32)), ("b32", y.view(np.uint32)))
        same(got.view(np.float16), x + y)
        got = apply("mul.f16x2 %res, %a, %b;", "b32", ("b32", x.view(np.uint32)), ("b32", y.view(np.uint32)))
        same(got.view(np.float16), x * y)
        got = apply("max.NaN.f16x2 %res, %a, %b;", "b32", ("b32", x.view(np.uint32)), ("b32", y.view(np.uint32)))
        assert np.array_equal(got.view(np.float16), np.maximum(x, y), equal_nan=True)
    bx = to_bf16(floats())
    got = apply("mul.bf16x2 %res, %a, %a;", "b32", ("b32", bx.view(np.uint32))).view(np.uint16)
    with np.errstate(all="ignore"):
        want = to_bf16(from_bf16(bx) * from_bf16(bx))
    nan = np.isnan(from_bf16(want))
    assert np.array_equal(got[~nan], want[~nan])


def test_comparisons_know_nan() -> None:
    x, y = floats(), RNG.permutation(floats())
    y[::7] = x[::7]
    nan = np.isnan(x) | np.isnan(y)
    with np.errstate(invalid="ignore"):
        ordered = {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}
    for name, want in ordered.items():
        for unordered in (False, True):
            text = f".reg .pred %t; setp.{name}{'u' if unordered else ''}.f32 %t, %a, %b; selp.u32 %res, 1, 0, %t;"
            expected = (want | nan) if unordered else (want & ~nan)
            assert np.array_equal(apply(text, "u32", ("f32", x), ("f32", y)) == 1, expected), name
    for name, expected in (("num", ~nan), ("nan", nan)):
        text = f".reg .pred %t; setp.{name}.f32 %t, %a, %b; selp.u32 %res, 1, 0, %t;"
        assert np.array_equal(apply(text, "u32", ("f32", x), ("f32", y)) == 1, expected)


def test_float_conversions() -> None:
    x = floats(n=256)
    with np.errstate(all="ignore"):
        same(apply("cvt.rn.f16.f32 %res, %a;", "f16", ("f32", x)), x.astype(np.float16))
        same(
            apply("cvt.f32.f16 %res, %a;", "f32", ("f16", x.astype(np.float16))),
            x.astype(np.float16).astype(np.float32),
        )
        same(apply("cvt.f64.f32 %res, %a;", "f64", ("f32", x)), x.astype(np.float64))
        wide = floats(np.float64)
        same(apply("cvt.rn.f32.f64 %res, %a;", "f32", ("f64", wide)), wide.astype(np.float32))
        got = apply("cvt.rn.bf16.f32 %res, %a;", "bf16", ("f32", x))
        assert np.array_equal(got[~np.isnan(x)], to_bf16(x)[~np.isnan(x)])
        packed = apply("cvt.rn.f16x2.f32 %res, %a, %b;", "b32", ("f32", x), ("f32", x[::-1].copy())).view(np.float16)
        same(packed[0::2].copy(), x[::-1].astype(np.float16))
        same(packed[1::2].copy(), x.astype(np.float16))
        for text, function in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
            got = apply(f"cvt.{text}.f32.f32 %res, %a;", "f32", ("f32", x))
            assert np.array_equal(got, function(x), equal_nan=True)
            got = apply(f"cvt.{text}.s32.f32 %res, %a;", "s32", ("f32", x))
            want = np.clip(
                np.nan_to_num(function(x.astype(np.float64)), nan=0, posinf=2e10, neginf=-2e10), -(2**31), 2**31 - 1
            )
            assert np.array_equal(got, want.astype(np.int64)), text
            got = apply(f"cvt.{text}.u32.f32 %res, %a;", "u32", ("f32", x))
            want = np.clip(np.nan_to_num(function(x.astype(np.float64)), nan=0, posinf=2e10, neginf=0), 0, 2**32 - 1)
            assert np.array_equal(got, want.astype(np.int64)), text
    for mode, compare in (("rz", lambda g: np.abs(g) <= np.abs(x)), ("rm", lambda g: g <= x), ("rp", lambda g: g >= x)):
        got = apply(f"cvt.{mode}.f16.f32 %res, %a;", "f16", ("f32", x)).astype(np.float64)
        finite = np.isfinite(x)
        assert np.all(compare(got)[finite]), mode


def test_integer_conversions() -> None:
    i = RNG.integers(-(2**63), 2**63 - 1, 64)
    assert np.array_equal(apply("cvt.rn.f32.s64 %res, %a;", "f32", ("s64", i)), i.astype(np.float32))
    assert np.array_equal(
        apply("cvt.rn.f64.u64 %res, %a;", "f64", ("u64", i.view(np.uint64))), i.view(np.uint64).astype(np.float64)
    )
    j = i.astype(np.int32)
    assert np.array_equal(apply("cvt.rn.f32.s32 %res, %a;", "f32", ("s32", j)), j.astype(np.float32))
    assert np.array_equal(apply("cvt.s64.s32 %res, %a;", "s64", ("s32", j)), j.astype(np.int64))
    assert np.array_equal(
        apply("cvt.u64.u32 %res, %a;", "u64", ("u32", j.view(np.uint32))), j.view(np.uint32).astype(np.uint64)
    )
    assert np.array_equal(
        apply("cvt.u16.u32 %res, %a;", "u16", ("u32", j.view(np.uint32))), j.view(np.uint32).astype(np.uint16)
    )
    assert np.array_equal(apply("cvt.s32.s8 %res, %a;", "s32", ("s32", j)), j.astype(np.int8).astype(np.int32))
    assert np.array_equal(
        apply("cvt.u32.u8 %res, %a;", "u32", ("u32", j.view(np.uint32))), j.astype(np.uint8).astype(np.uint32)
    )
    got = apply("cvt.sat.s8.s32 %res, %a;", "s32", ("s32", j))
    assert np.array_equal(got, np.clip(j, -128, 127))


def test_tf32() -> None:
    x = floats(n=256)
    got = apply("cvt.rna.tf32.f32 %res, %a;", "b32", ("f32", x)).view(np.float32)
    finite = np.isfinite(x) & (np.abs(x) < 3.3e38)
    assert np.all(got.view(np.uint32)[finite] & 0x1FFF == 0)
    assert np.all(np.abs(got - x)[finite] <= np.maximum(np.abs(x[finite]) * 2.0**-11, 1e-44 * 2**13))


def test_eight_bit_floats() -> None:
    x = (RNG.standard_normal(128) * 2.0 ** RNG.integers(-10, 10, 128)).astype(np.float32)
    zero = np.zeros_like(x)
    for kind, mantissa, largest, smallest in (("e4m3", 3, 448.0, 2.0**-9), ("e5m2", 2, 57344.0, 2.0**-16)):
        packed = apply(f"cvt.rn.satfinite.{kind}x2.f32 %res, %a, %b;", "b16", ("f32", zero), ("f32", x))
        back = (
            apply(f"cvt.rn.f16x2.{kind}x2 %res, %a;", "b32", ("b16", packed)).view(np.float16)[::2].astype(np.float64)
        )
        clipped = np.clip(x.astype(np.float64), -largest, largest)
        assert np.all(np.abs(back - clipped) <= np.maximum(np.abs(clipped) * 2.0 ** -(mantissa + 1), smallest / 2))
