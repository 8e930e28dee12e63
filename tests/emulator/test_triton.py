"""Kernels from a compiler nobody here wrote: Triton compiles to sm_80 PTX without a GPU; the emulator's results are numpy's."""

from __future__ import annotations

import os
import tempfile
import warnings

import numpy as np
import pytest
from ptx_kernels import emulator

os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="triton-cache-"))
triton = pytest.importorskip("triton", reason="triton is not installed (the extra 'triton')")

import triton_kernels as kernels  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

RNG = np.random.default_rng(5)


def compiled(
    function: object,
    signature: dict[str, str],
    constants: dict[str, object],
    warps: int = 4,
    stages: int = 3,
    multiples_of_16: tuple[str, ...] = (),
):
    """A module, its kernel's name and its shared memory."""
    names = function.arg_names
    full = {name: "constexpr" if name in constants else signature[name] for name in names}
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if full[name].startswith("*") or name in multiples_of_16
    }
    source = ASTSource(fn=function, signature=full, constexprs=constants, attrs=divisible)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = triton.compile(
            source, target=GPUTarget("cuda", 80, 32), options={"num_warps": warps, "num_stages": stages}
        )
    return emulator.load(built.asm["ptx"]), built.metadata.name, built.metadata.shared


def launch(built: tuple, grid: int | tuple[int, ...], args: list[object], warps: int = 4, **options: object):
    module, name, shared = built
    scratch = len(module.kernels[name].parameters) - len(args)  # pointers Triton adds; these kernels do not use them
    report = module.launch(name, grid, 32 * warps, [*args, *[None] * scratch], shared_bytes=shared, **options)
    report.raise_for_findings()
    return report


def bf16(x: np.ndarray) -> np.ndarray:
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def float_of(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x.astype(np.float64)


def test_vector_add() -> None:
    built = compiled(kernels.vector_add, {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 256})
    n = 1000
    x, y, out = (
        RNG.standard_normal(n).astype(np.float32),
        RNG.standard_normal(n).astype(np.float32),
        np.zeros(n, np.float32),
    )
    report = launch(built, 4, [x, y, out, n])
    assert np.array_equal(out, x + y)
    assert report.counters["global_load"]["bytes"] == 2 * 4 * n


@pytest.mark.parametrize("schedule", ["round_robin", "random"])
def test_softmax(schedule: str) -> None:
    built = compiled(kernels.softmax, {"x": "*fp32", "out": "*fp32", "stride": "i32", "n": "i32"}, {"BLOCK": 512})
    x = (RNG.standard_normal((6, 400)) * 4).astype(np.float32)
    out = np.zeros_like(x)
    launch(built, 6, [x, out, 400, 400], schedule=schedule, seed=3)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert np.abs(out - e / e.sum(1, keepdims=True)).max() < 1e-6


def test_layer_norm() -> None:
    signature = {"x": "*fp16", "weight": "*fp16", "bias": "*fp16", "out": "*fp16", "n": "i32", "eps": "fp32"}
    built = compiled(kernels.layer_norm, signature, {"BLOCK": 256})
    x, weight, bias = (RNG.standard_normal(s).astype(np.float16) for s in ((5, 200), 200, 200))
    out = np.zeros_like(x)
    launch(built, 5, [x, weight, bias, out, 200, 1e-5])
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * weight + bias
    assert np.all(np.abs(out - want) <= 2.0**-10 * np.abs(want) + 1e-3)


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("kind", ["fp16", "bf16", "tf32", "int8"])
def test_matmul(kind: str, stages: int) -> None:
    m, n, k = 100, 80, 96
    element = {"fp16": "*fp16", "bf16": "*bf16", "tf32": "*fp32", "int8": "*i8"}[kind]
    signature = {"a": element, "b": element, "c": "*i32" if kind == "int8" else "*fp32"}
    signature |= dict.fromkeys(("m", "n", "k", "stride_a", "stride_b", "stride_c"), "i32")
    accumulator = kernels.tl.int32 if kind == "int8" else kernels.tl.float32
    constants = {"BM": 64, "BN": 32, "BK": 32, "ACCUMULATOR": accumulator}
    strides = ("n", "k", "stride_a", "stride_b", "stride_c")
    built = compiled(kernels.matmul, signature, constants, stages=stages, multiples_of_16=strides)
    if kind == "int8":
        a, b = RNG.integers(-128, 128, (m, k)).astype(np.int8), RNG.integers(-128, 128, (k, n)).astype(np.int8)
        c = np.zeros((m, n), np.int32)
    else:
        make = {"fp16": lambda x: x.astype(np.float16), "bf16": bf16, "tf32": lambda x: x.astype(np.float32)}[kind]
        a, b = make(RNG.standard_normal((m, k))), make(RNG.standard_normal((k, n)))
        c = np.zeros((m, n), np.float32)
    report = launch(built, 2 * 3, [a, b, c, m, n, k, k, n, n], schedule="random", seed=stages)
    if kind == "int8":
        assert np.array_equal(c, a.astype(np.int32) @ b.astype(np.int32))
        return
    want = float_of(a).astype(np.float64) @ float_of(b).astype(np.float64)
    bound = np.abs(float_of(a)).astype(np.float64) @ np.abs(float_of(b)).astype(np.float64)
    assert np.all(np.abs(c - want) <= bound * (2.0**-10 if kind == "tf32" else 2.0**-21))
    assert report.counters["tensor_flops"] >= 2 * m * n * k
    if stages > 1:
        assert report.counters["by_class"]["async_copy"] > 0


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_flash_attention(kind: str) -> None:
    heads, length, d = 2, 80, 64
    signature = dict.fromkeys(("q", "k", "v", "out"), "*" + kind) | {"length": "i32", "scale": "fp32"}
    built = compiled(kernels.flash_attention, signature, {"BM": 64, "BN": 32, "D": d}, stages=2)
    make = (lambda x: x.astype(np.float16)) if kind == "fp16" else bf16
    q, k, v = (make(RNG.standard_normal((heads, length, d))) for _ in range(3))
    out = np.zeros_like(q)
    scale = d**-0.5
    report = launch(built, (2, heads), [q, k, v, out, length, scale * np.log2(np.e).item()], schedule="random", seed=7)
    wide = [float_of(x).astype(np.float64) for x in (q, k, v)]
    scores = wide[0] @ wide[1].transpose(0, 2, 1) * scale
    p = np.exp(scores - scores.max(2, keepdims=True))
    want = p / p.sum(2, keepdims=True) @ wide[2]
    unit = 2.0**-10 if kind == "fp16" else 2.0**-7
    assert np.abs(float_of(out) - want).max() < 2 * unit
    assert report.counters["by_class"]["tensor"] > 0
