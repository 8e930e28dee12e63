"""Kernels in Triton for test_triton.py: a module of their own, because Triton reads their source."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def vector_add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = i < n
    tl.store(out + i, tl.load(x + i, mask=keep) + tl.load(y + i, mask=keep), mask=keep)


@triton.jit
def softmax(x, out, stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    values = tl.load(x + row * stride + i, mask=i < n, other=-float("inf"))
    e = tl.exp(values - tl.max(values, 0))
    tl.store(out + row * stride + i, e / tl.sum(e, 0), mask=i < n)


@triton.jit
def layer_norm(x, weight, bias, out, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    keep = i < n
    values = tl.load(x + row * n + i, mask=keep, other=0.0).to(tl.float32)
    mean = tl.sum(values, 0) / n
    centred = tl.where(keep, values - mean, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(centred * centred, 0) / n + eps)
    result = centred * inverse * tl.load(weight + i, mask=keep).to(tl.float32) + tl.load(bias + i, mask=keep).to(
        tl.float32
    )
    tl.store(out + row * n + i, result.to(tl.float16), mask=keep)


@triton.jit
def matmul(
    a,
    b,
    c,
    m,
    n,
    k,
    stride_a,
    stride_b,
    stride_c,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
):
    blocks_n = tl.cdiv(n, BN)
    i = tl.program_id(0) // blocks_n * BM + tl.arange(0, BM)
    j = tl.program_id(0) % blocks_n * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=ACCUMULATOR)
    for start in range(0, k, BK):
        at = start + depth
        x = tl.load(a + i[:, None] * stride_a + at[None, :], mask=(i[:, None] < m) & (at[None, :] < k), other=0)
        y = tl.load(b + at[:, None] * stride_b + j[None, :], mask=(at[:, None] < k) & (j[None, :] < n), other=0)
        total = tl.dot(x, y, total, out_dtype=ACCUMULATOR)
    tl.store(c + i[:, None] * stride_c + j[None, :], total, mask=(i[:, None] < m) & (j[None, :] < n))


@triton.jit
def flash_attention(q, k, v, out, length, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    """Softmax in base 2: `scale` holds the logarithm."""
    base = tl.program_id(1).to(tl.int64) * length * D
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    query = tl.load(q + base + i[:, None] * D + d[None, :], mask=i[:, None] < length, other=0.0)
    maximum = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    result = tl.zeros((BM, D), tl.float32)
    for start in range(0, length, BN):
        j = start + tl.arange(0, BN)
        key = tl.load(k + base + j[None, :] * D + d[:, None], mask=j[None, :] < length, other=0.0)
        scores = tl.where(j[None, :] < length, tl.dot(query, key) * scale, -float("inf"))
        higher = tl.maximum(maximum, tl.max(scores, 1))
        p = tl.exp2(scores - higher[:, None])
        correction = tl.exp2(maximum - higher)
        total = total * correction + tl.sum(p, 1)
        value = tl.load(v + base + j[:, None] * D + d[None, :], mask=j[:, None] < length, other=0.0)
        result = tl.dot(p.to(value.dtype), value, result * correction[:, None])
        maximum = higher
    result = result / total[:, None]
    tl.store(out + base + i[:, None] * D + d[None, :], result.to(query.dtype), mask=i[:, None] < length)
