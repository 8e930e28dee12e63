"""Gradients of attention on the emulator: what the grid of cases does not show. Every launch is checked for races, accesses outside the tensors and uninitialised
reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkernels as vk
from vlmkernels import backends, images
from vlmkernels.verify.grid import allowed_pairs, dense_attention
from vlmkernels.verify.rule import compare

WHY_NOT = backends.native_error if backends.native is None else images.missing("attention")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "kernels are there")

HEAD_DIMS = [8, 40, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 176, 256]
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d).removeprefix("torch."))


def qkv(sq: int, sk: int, d: int, heads: int = 1, key_heads: int = 1, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:  # fmt: skip
    g = torch.Generator().manual_seed(sq + 1000 * sk + d)
    return [torch.randn(2, h, s, d, generator=g).to(dtype) for h, s in ((heads, sq), (key_heads, sk), (key_heads, sk))]


def gradients(attend: Callable[..., Any], inputs: list[Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Of both results, weighted by fixed numbers."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    out, lse = attend(*inputs, **options)
    g = torch.Generator().manual_seed(1)
    total = (out.double() * torch.randn(out.shape, generator=g)).sum()
    total = total + (torch.where(lse.isfinite(), lse, 0.0).double() * torch.randn(lse.shape, generator=g)).sum()
    return torch.autograd.grad(total, inputs)


def emulated(inputs: list[Tensor], attend: Callable[..., Any] = vk.attention, **options: Any) -> tuple[Tensor, ...]:
    with backends.use_backend("emulator"):
        return gradients(attend, inputs, **options, return_lse=True)


def check(inputs: list[Tensor], **options: Any) -> None:
    """By the accuracy rule, against PyTorch in the same dtype and float64."""
    found = emulated(inputs, **options)
    seen = allowed_pairs(inputs[0].shape[2], inputs[1].shape[2], options.get("causal"), options.get("window"))
    peer = gradients(lambda q, k, v: dense_attention(q, k, v, seen, None, None, options.get("softcap")), inputs)
    with backends.use_backend("reference"):
        exact = gradients(vk.attention, [t.double() for t in inputs], **options, return_lse=True)
    for name, f, p, e in zip(("query", "key", "value"), found, peer, exact, strict=True):
        finding = compare(f"grad {name}", f, p, e, gradient=True)
        assert finding.passed, str(finding)


@pytest.mark.parametrize("d", HEAD_DIMS)
def test_ragged_lengths(d: int) -> None:
    """Around the edges of warps, of rows that are held and of those that stream by, of every tile; with masks and without."""
    for sq, sk in ((1, 1), (15, 47), (31, 17), (33, 63), (64, 65), (129, 97), (66, 130), (257, 5), (5, 257)):
        check(qkv(sq, sk, d))
        check(qkv(sq, sk, d), causal="bottom_right")


@pytest.mark.parametrize("d", [8, 64, 72, 128, 136, 256])
def test_fp32(d: int) -> None:
    """A query with a single key is left out: its gradients are what rounding leaves of a difference that is 0."""
    for sq, sk in ((1, 9), (31, 17), (66, 130), (70, 35)):
        check(qkv(sq, sk, d, heads=2, dtype=torch.float32))
        check(qkv(sq, sk, d, dtype=torch.float32), causal="bottom_right")


@pytest.mark.parametrize("sk", [1, 16, 31, 32, 33, 96, 127, 128, 129, 197, 224, 225, 255, 256, 257, 300])
def test_one_block_for_all_keys(sk: int) -> None:
    for sq in (1, 17, 64, 65, 197):
        check(qkv(sq, sk, 64, heads=2, key_heads=1))


@DTYPES
@pytest.mark.parametrize("d", HEAD_DIMS)
def test_schedules_do_not_change_the_bits(d: int, dtype: torch.dtype) -> None:
    inputs = qkv(131, 200, d, heads=2, dtype=dtype)
    for options in ({}, {"causal": "bottom_right", "window": (150, None), "softcap": 20.0}):
        expected = emulated(inputs, **options)
        for seed in range(2):
            with backends.emulation(schedule="random", seed=seed):
                assert all(torch.equal(a, b) for a, b in zip(emulated(inputs, **options), expected, strict=True))


@DTYPES
@pytest.mark.parametrize("d", [64, 80, 128, 200])
@pytest.mark.parametrize("kind", ["peaked", "far below zero", "softcap"])
def test_logits_of_all_kinds(kind: str, d: int, dtype: torch.dtype) -> None:
    """Scores far below zero make keys past the end, whose scores are 0, weigh infinitely much; they must not reach a gradient."""
    for sq, sk in ((70, 97), (50, 300)):
        q, k, v = qkv(sq, sk, d, dtype=dtype)
        if kind == "peaked":
            q, k = 3 * q, 3 * k
        elif kind == "far below zero":
            q, k = q + 4, k - 4
        check([q, k, v], **({"softcap": 5.0} if kind == "softcap" else {}))


@pytest.mark.parametrize("d", [64, 72, 256])
def test_gradients_of_groups_are_sums(d: int) -> None:
    for options in ({}, {"causal": "top_left"}):
        q, k, v = qkv(100, 150, d, heads=6, key_heads=2)
        found = emulated([q, k, v], **options)
        single = emulated([q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)], **options)
        torch.testing.assert_close(found[0], single[0], atol=3e-2, rtol=3e-2)
        for f, s in zip(found[1:], single[1:], strict=True):
            torch.testing.assert_close(f, s.unflatten(1, (2, 3)).float().sum(2).bfloat16(), atol=6e-2, rtol=3e-2)


def test_gradients_of_the_logsumexp_alone() -> None:
    inputs = [t.requires_grad_() for t in qkv(40, 70, 64)]
    with backends.use_backend("emulator"):
        _, lse = vk.attention(*inputs, return_lse=True)
        query, _, value = torch.autograd.grad(lse.sum(), inputs)
    probabilities = torch.softmax(inputs[0].float() @ inputs[1].float().mT / 8, -1)
    torch.testing.assert_close(query.float(), probabilities @ inputs[1].float() / 8, atol=2e-2, rtol=2e-2)
    assert not value.any()


def test_sequences_are_dense_batches_of_one() -> None:
    lengths = [3, 0, 130, 64, 1, 257, 0]
    boundaries = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    total = int(boundaries[-1])
    g = torch.Generator().manual_seed(4)
    for d, options in ((64, {}), (72, {"causal": "top_left"}), (200, {})):
        q, k, v = (torch.randn(total + 5, 2, d, generator=g).bfloat16().requires_grad_() for _ in range(3))
        weight = torch.randn(total + 5, 2, d, generator=g).bfloat16()
        with backends.use_backend("emulator"):
            out = vk.attention_varlen(q, k, v, boundaries, boundaries, **options)
            found = torch.autograd.grad(out, (q, k, v), weight)
            for begin, end in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strict=True):
                one = [t[begin:end].transpose(0, 1)[None].detach().requires_grad_() for t in (q, k, v)]
                exact = torch.autograd.grad(vk.attention(*one, **options), one, weight[begin:end].transpose(0, 1)[None])
                for f, e in zip(found, exact, strict=True):
                    torch.testing.assert_close(f[begin:end].transpose(0, 1)[None], e, atol=3e-2, rtol=3e-2)
        assert not any(f[total:].any() for f in found)


def test_short_sequences() -> None:
    """With one key each, the output's gradient is the value's."""
    count = 500
    boundaries = torch.arange(count + 1, dtype=torch.int32)
    q, k, v, weight = (torch.randn(count, 1, 8).bfloat16() for _ in range(4))
    v.requires_grad_()
    with backends.use_backend("emulator"):
        vk.attention_varlen(q, k, v, boundaries, boundaries).backward(weight)
    assert v.grad is not None
    assert torch.equal(v.grad, weight)


def flops(inputs: list[Tensor], attend: Callable[..., Any] = vk.attention, **options: Any) -> int:
    with backends.emulation(counters=True, checks=False) as launches:
        emulated(inputs, attend, **options)
    return sum(x.report["counters"]["tensor_flops"] for x in launches if "backward" in x.plan["kernel"])


def test_masked_blocks_are_skipped() -> None:
    """Tensor-core work follows what is visible."""
    inputs = qkv(512, 512, 72)
    full = flops(inputs)
    assert flops(inputs, causal="top_left") < 0.6 * full
    assert flops(inputs, window=(32, 32)) < 0.3 * full
    assert flops(inputs, mask=(torch.arange(512)[None] < 128).expand(2, 512)) < 0.3 * full
    visible = torch.zeros(2, 512, 4, dtype=torch.bool)
    visible[:, 256:, 2] = True
    assert flops(inputs, vk.cross_attention, visible=visible, tokens_per_tile=128) < 0.2 * full
    documents = torch.arange(512) // 128
    assert flops(inputs, mask=documents[:, None] == documents) < 0.3 * full


def test_masks_say_the_same() -> None:
    """One pattern as tiles, and as a mask of every kind and stride."""
    inputs = qkv(100, 300, 72, heads=2, key_heads=2)
    visible = torch.tensor([[True, False, True], [False, True, True]])[:, None].expand(2, 100, 3)
    seen = visible.repeat_interleave(100, 2)
    bias = torch.zeros(2, 100, 300).masked_fill(~seen, -torch.inf)
    expected = emulated(inputs, vk.cross_attention, visible=visible, tokens_per_tile=100)
    for mask in (seen[:, None], bias[:, None], bias[:, None].bfloat16(), bias.mT.contiguous().mT[:, None]):
        for f, e in zip(emulated(inputs, mask=mask), expected, strict=True):
            torch.testing.assert_close(f, e, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("d", [64, 72, 128, 200])
def test_nothing_outside_the_tensors_matters(d: int) -> None:
    """NaN in every gap of a strided tensor; the bits are those of contiguous ones."""
    tight = qkv(45, 77, d, heads=2, key_heads=2)

    def spread(t: Tensor) -> Tensor:
        wide = torch.full((2, t.shape[2] + 3, 5, d + 16), float("nan"), dtype=t.dtype)
        return wide[:, 2:-1, 1:3, 8:-8].transpose(1, 2).copy_(t)

    def shifted(t: Tensor) -> Tensor:  # rows that do not start at multiples of 16 bytes
        wide = torch.full((2, 2, t.shape[2] + 2, d + 3), float("nan"), dtype=t.dtype)
        return wide[:, :, 1:-1, 1:-2].copy_(t)

    for options in ({}, {"causal": "top_left"}):
        expected = emulated(tight, **options)
        for other in (spread, shifted):
            found = emulated([other(t) for t in tight], **options)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("sk", "d"), [(128, 64), (197, 64)] + [(333, d) for d in (32, 64, 72, 80, 88, 96, 104, 112, 128, 256)])  # fmt: skip
def test_memory_is_used_well(sk: int, d: int) -> None:
    """Whole sectors, and no bank conflicts but those of copies whose lanes cross from one row of odd pitch to the next."""
    inputs = qkv(128, sk, d)
    with backends.emulation(counters=True, checks=False) as launches:
        emulated(inputs)
    for launch in launches:
        if "backward" not in launch.plan["kernel"]:
            continue
        traffic = launch.report["counters"]
        for kind in ("global_async", "global_store"):
            if traffic[kind]["sectors"]:
                assert traffic[kind]["ideal_sectors"] >= 0.9 * traffic[kind]["sectors"], launch.plan["kernel"]
        # Copies in and out at 32: rows of 64 bytes, 80 apart, meet in a bank.
        assert (
            traffic["shared_load"]["wavefronts"]
            <= (1.1 if d == 32 else 1.05) * traffic["shared_load"]["ideal_wavefronts"]
        )
        assert (
            traffic["shared_store"]["wavefronts"]
            <= (2.0 if d == 32 else 1.6) * traffic["shared_store"]["ideal_wavefronts"]
        )
