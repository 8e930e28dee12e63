"""Attention on the emulator: what the grid of cases does not show. Every launch is checked for races, accesses outside the tensors and uninitialised reads."""

from __future__ import annotations

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

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
HEAD_DIMS = [8, 40, 64, 72, 80, 88, 96, 104, 112, 120, 128, 176, 256]


def qkv(sq: int, sk: int, d: int, heads: int = 1, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(sq + 1000 * sk + d)
    return tuple(torch.randn(1, heads, s, d, generator=g).to(dtype) for s in (sq, sk, sk))  # type: ignore[return-value]


def emulated(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    with backends.use_backend("emulator"):
        return vk.attention(*args, **options, return_lse=True)  # type: ignore[no-any-return]


def check(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> None:
    """By the accuracy rule, against PyTorch in the same dtype and float64."""
    found = emulated(q, k, v, **options)
    seen = allowed_pairs(q.shape[2], k.shape[2], options.get("causal"), options.get("window"))
    peer = dense_attention(q, k, v, seen, None, None, None)
    with backends.use_backend("reference"):
        exact = vk.attention(q.double(), k.double(), v.double(), **options, return_lse=True)
    for name, f, p, e in zip(("out", "lse"), found, peer, exact, strict=True):
        finding = compare(name, f, p, e)
        assert finding.passed, str(finding)


@pytest.mark.parametrize("d", HEAD_DIMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda d: str(d).removeprefix("torch."))
def test_ragged_lengths(d: int, dtype: torch.dtype) -> None:
    """Around the edges of warps, blocks of rows and blocks of keys of every tile."""
    for sq, sk in ((1, 1), (15, 47), (17, 48), (31, 49), (33, 63), (64, 65), (129, 97), (130, 129), (5, 257)):
        check(*qkv(sq, sk, d, dtype=dtype))


@pytest.mark.parametrize("d", HEAD_DIMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_schedules_do_not_change_the_bits(d: int, dtype: torch.dtype) -> None:
    q, k, v = qkv(131, 200, d, dtype=dtype)
    options: dict[str, Any] = {"causal": "bottom_right", "window": (150, None)}
    expected = emulated(q, k, v, **options)
    for seed in range(2):
        with backends.emulation(schedule="random", seed=seed):
            assert all(torch.equal(a, b) for a, b in zip(emulated(q, k, v, **options), expected, strict=True))


@pytest.mark.parametrize("kind", ["peaked", "growing", "huge", "negative scale"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("d", [64, 104, 136])
def test_logits_that_outgrow_the_first_keys(d: int, dtype: torch.dtype, kind: str) -> None:
    """The reference of the softmax is that of the first keys until sums grow too large."""
    q, k, v = qkv(40, 333, d, dtype=dtype)
    options: dict[str, Any] = {}
    if kind == "peaked":
        q, k = 3 * q, 3 * k
    elif kind == "growing":
        q, k = 3 * q, 3 * k * torch.linspace(0.05, 1, 333)[:, None].to(dtype)
    elif kind == "huge":
        q, k = 30 * q, 30 * k
        k[:, :, :70] *= 0.01
    else:
        options["scale"] = -0.3
    if "scale" in options:
        found = emulated(q, k, v, **options)
        flipped = emulated(-q, k, v, scale=0.3)
        assert all(torch.equal(a, b) for a, b in zip(found, flipped, strict=True))
    else:
        check(q, k, v)


def test_not_a_number_stays_in_its_row() -> None:
    q, k, v = qkv(70, 200, 64)
    clean = emulated(q, k, v)
    q[0, 0, 33, 5] = float("nan")
    q[0, 0, 50, 5] = float("inf")
    out, lse = emulated(q, k, v)
    assert out[0, 0, 33].isnan().all()
    assert lse[0, 0, [33, 50]].isnan().all()
    rest = [i for i in range(70) if i not in (33, 50)]
    torch.testing.assert_close(out[0, 0, rest], clean[0][0, 0, rest], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("d", [64, 72, 128])
def test_nothing_outside_the_tensors_matters(d: int) -> None:
    """NaN in every gap of a strided tensor; the bits are those of contiguous ones."""
    tight = qkv(45, 77, d, heads=2)
    expected = emulated(*tight)

    def spread(t: Tensor) -> Tensor:
        wide = torch.full((1, t.shape[2] + 3, 5, d + 16), float("nan"), dtype=t.dtype)
        inner = wide[:, 2:-1, 1:3, 8:-8].transpose(1, 2)
        return inner.copy_(t)

    def shifted(t: Tensor) -> Tensor:  # rows that do not start at multiples of 16 bytes
        wide = torch.full((1, 2, t.shape[2] + 2, d + 3), float("nan"), dtype=t.dtype)
        return wide[:, :, 1:-1, 1:-2].copy_(t)

    for other in (spread, shifted):
        assert all(torch.equal(a, b) for a, b in zip(emulated(*map(other, tight)), expected, strict=True))
    if d < 112:
        more = qkv(145, 77, d, heads=2)
        expected = resident(*more)
        for other in (spread, shifted):
            assert all(torch.equal(a, b) for a, b in zip(resident(*map(other, more)), expected, strict=True))


RESIDENT = [
    (64, 257),
    (72, 209),
    (80, 257),
    (88, 208),
    (96, 197),
    (104, 177),
]  # head dims, and keys of which two blocks have room


def resident(*args: Any, multiprocessors: int = 1, **options: Any) -> tuple[Tensor, Tensor]:
    """On a GPU so small that few heads fill it."""
    with backends.emulation(multiprocessors=multiprocessors) as launches:
        found = emulated(*args, **options)
    assert [launch.plan["kernel"].split("_")[2] for launch in launches] == ["resident"]
    return found


@pytest.mark.parametrize(("d", "most"), RESIDENT)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda d: str(d).removeprefix("torch."))
def test_keys_that_stay_in_shared_memory(d: int, most: int, dtype: torch.dtype) -> None:
    """Around the edges of blocks of keys and tiles of rows; grouped heads are the rows of one block, tiles across heads among them."""
    for heads, key_heads, sq, sk in ((2, 2, 129, 1), (2, 2, 257, 15), (2, 2, 150, 97), (2, 2, 161, most), (6, 2, 70, 48), (4, 2, 129, 130)):  # fmt: skip
        g = torch.Generator().manual_seed(sk)
        q = torch.randn(1, heads, sq, d, generator=g).to(dtype)
        k, v = (torch.randn(1, key_heads, sk, d, generator=g).to(dtype) for _ in range(2))
        found = resident(q, k, v)
        with backends.use_backend("reference"):
            exact = vk.attention(q.double(), k.double(), v.double(), return_lse=True)
        k, v = (t.repeat_interleave(heads // key_heads, 1) for t in (k, v))
        peer = dense_attention(q, k, v, torch.ones(sq, sk, dtype=torch.bool), None, None, None)
        for name, f, p, e in zip(("out", "lse"), found, peer, exact, strict=True):
            finding = compare(name, f, p, e)
            assert finding.passed, str(finding)


@pytest.mark.parametrize(("d", "most"), RESIDENT)
def test_schedules_do_not_change_the_bits_of_resident_keys(d: int, most: int) -> None:
    q, k, v = qkv(150, most - 30, d, heads=2)
    expected = resident(q, k, v)
    for seed in range(3):
        with backends.emulation(schedule="random", seed=seed, multiprocessors=1) as launches:
            found = emulated(q, k, v)
        assert "resident" in launches[0].plan["kernel"]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["peaked", "growing", "huge", "not a number"])
def test_resident_keys_do_the_same(kind: str) -> None:
    """As blocks that load keys again, bit by bit: the order of keys is the same."""
    q, k, v = qkv(192, 240, 72, heads=2, dtype=torch.float16)
    if kind == "not a number":
        q[0, 1, 33, 5], q[0, 0, 50, 5] = float("nan"), float("inf")
    elif kind == "growing":
        q, k = 3 * q, 3 * k * torch.linspace(0.05, 1, 240)[:, None].half()
    else:
        q, k = (3 * q, 3 * k) if kind == "peaked" else (30 * q, 30 * k)
        k[:, :, :70] *= 0.01 if kind == "huge" else 1
    for a, b in zip(resident(q, k, v), emulated(q, k, v), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize(("d", "most"), RESIDENT)
def test_resident_keys_use_memory_well(d: int, most: int) -> None:
    """Keys and values are read once, in whole sectors; shared memory without bank conflicts."""
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in qkv(most, most, d, heads=4))
    with backends.use_backend("emulator"), backends.emulation(counters=True, checks=False, multiprocessors=1) as launches:  # fmt: skip
        vk.attention(q, k, v)
    (launch,) = launches
    traffic = launch.report["counters"]
    assert traffic["global_async"]["bytes"] == 2 * k.numel() * 2
    for kind in ("global_async", "global_load", "global_store"):
        assert traffic[kind]["ideal_sectors"] >= 0.9 * traffic[kind]["sectors"], kind
    assert traffic["shared_load"]["wavefronts"] <= 1.05 * traffic["shared_load"]["ideal_wavefronts"]
    assert traffic["shared_store"]["wavefronts"] <= 1.15 * traffic["shared_store"]["ideal_wavefronts"]


def test_grouped_heads_are_their_single_heads() -> None:
    """Rows of a group share blocks where queries are few, and do not where they are many."""
    for sq in (1, 5, 40, 150):
        g = torch.Generator().manual_seed(sq)
        q = torch.randn(2, 6, sq, 64, generator=g).bfloat16()
        k, v = (torch.randn(2, 2, 100, 64, generator=g).bfloat16() for _ in range(2))
        out, lse = emulated(q, k, v, causal="bottom_right", window=(60, None))
        single = emulated(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), causal="bottom_right", window=(60, None))  # fmt: skip
        torch.testing.assert_close(out, single[0], atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(lse, single[1])


@pytest.mark.parametrize("d", [64, 72, 128, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_few_queries_and_many_keys(d: int, dtype: torch.dtype) -> None:
    """The keys are split; parts that a row does not see are left out of it."""
    for sq, sk in ((1, 1601), (33, 777)):
        check(*qkv(sq, sk, d, dtype=dtype))
        check(*qkv(sq, sk, d, dtype=dtype), causal="top_left")
        check(*qkv(sq, sk, d, dtype=dtype), causal="bottom_right", window=(700, 3))
    q, k, v = qkv(5, 777, d, dtype=dtype)
    blind = torch.zeros(5, 777, dtype=torch.bool)
    blind[1:, 300:310] = True
    with backends.emulation() as launches:
        out, lse = emulated(q, k, v, mask=blind)
    assert [launch.plan["kernel"].split("_")[1] for launch in launches] == ["forward", "combine"]
    assert not out[0, 0, 0].any()
    assert lse[0, 0, 0] == -torch.inf
    expected = emulated(q[:, :, 1:], k[:, :, 300:310], v[:, :, 300:310])
    torch.testing.assert_close(out[:, :, 1:], expected[0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(lse[:, :, 1:], expected[1])


def test_sequences_are_dense_batches_of_one() -> None:
    g = torch.Generator().manual_seed(4)
    lengths = [3, 0, 130, 64, 1, 257, 0]
    boundaries = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    total = int(boundaries[-1])
    q, k, v = (torch.randn(total + 5, 2, 72, generator=g).bfloat16() for _ in range(3))
    k[total:], v[total:] = float("nan"), float("nan")
    with backends.use_backend("emulator"):
        out, lse = vk.attention_varlen(q, k, v, boundaries, boundaries, causal="top_left", return_lse=True)
    assert not out[total:].any()
    assert (lse[:, total:] == -torch.inf).all()
    for begin, end in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strict=True):
        one, one_lse = emulated(*(t[begin:end].transpose(0, 1)[None] for t in (q, k, v)), causal="top_left")
        torch.testing.assert_close(out[begin:end].transpose(0, 1)[None], one, atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(lse[None, :, begin:end], one_lse)


def test_one_long_sequence_among_short_ones() -> None:
    """Blocks are made for the average; a long sequence has many of them."""
    g = torch.Generator().manual_seed(5)
    lengths = [8] * 60 + [300] + [16] * 20
    boundaries = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    q, k, v = (torch.randn(int(boundaries[-1]), 1, 80, generator=g).bfloat16() for _ in range(3))
    with backends.use_backend("emulator"), backends.emulation() as launches:
        out = vk.attention_varlen(q, k, v, boundaries, boundaries)
    assert launches[0].plan["block"] == (32, 1, 1)
    begin, end = int(boundaries[60]), int(boundaries[61])
    for a, b in ((begin, end), (0, 8), (end, end + 16)):
        one = emulated(*(t[a:b].transpose(0, 1)[None] for t in (q, k, v)))[0]
        torch.testing.assert_close(out[a:b].transpose(0, 1)[None], one, atol=2e-2, rtol=2e-2)


def test_many_short_sequences() -> None:
    """More than 65,535 of them."""
    count = 66_000
    boundaries = torch.arange(count + 1, dtype=torch.int32)
    q, k, v = (torch.randn(count, 1, 8).bfloat16() for _ in range(3))
    with backends.use_backend("emulator"), backends.emulation(checks=False):
        out = vk.attention_varlen(q, k, v, boundaries, boundaries)
    assert torch.equal(out, v)


def test_masked_blocks_are_skipped() -> None:
    """Tensor-core work follows what is visible."""

    def flops(function: Any, *args: Any, **options: Any) -> int:
        with backends.use_backend("emulator"), backends.emulation(counters=True) as launches:
            function(*args, **options)
        return sum(launch.report["counters"]["tensor_flops"] for launch in launches)

    q, k, v = qkv(512, 512, 64)
    full = flops(vk.attention, q, k, v)
    assert flops(vk.attention, q, k, v, causal="top_left") < 0.6 * full
    assert flops(vk.attention, q, k, v, window=(32, 32)) < 0.3 * full
    validity = torch.arange(512)[None] < 128
    assert flops(vk.attention, q, k, v, mask=validity) < 0.3 * full
    visible = torch.zeros(1, 512, 4, dtype=torch.bool)
    visible[:, 256:, 2] = True
    assert flops(vk.cross_attention, q, k, v, visible=visible, tokens_per_tile=128) < 0.2 * full
    documents = torch.arange(512) // 128
    assert flops(vk.attention, q, k, v, mask=documents[:, None] == documents) < 0.3 * full
    bias = torch.zeros(512).masked_fill(documents == 3, -torch.inf)
    assert flops(vk.attention, q, k, v, mask=bias.expand(512, 512)) < 0.8 * full


def test_padding_costs_little() -> None:
    """Rows that are padding go the fast way through keys that are not."""
    q, k, v = qkv(256, 1024, 64)
    padding = torch.arange(1024)[None] % 512 >= 504
    with backends.use_backend("emulator"), backends.emulation(counters=True) as launches:
        vk.cross_attention(q, k, v)
        found = vk.cross_attention(q, k, v, query_padding=padding[:, 256:512], key_padding=padding, return_lse=True)
    seen = ~(padding[0, 256:512, None] & padding)
    expected = emulated(q, k, v, mask=seen)
    torch.testing.assert_close(found[0], expected[0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found[1], expected[1])
    plain, padded = (sum(launch.report["counters"]["warp_instructions"] for launch in part) for part in (launches[:-1], launches[-1:]))  # fmt: skip
    assert padded < 1.6 * plain


def test_masks_say_the_same() -> None:
    """One pattern as tiles, as a mask of every kind and stride, and as key validity."""
    q, k, v = (t.expand(2, -1, -1, -1).clone() for t in qkv(100, 300, 72, heads=2))
    visible = torch.tensor([[True, False, True], [False, True, True]])[:, None].expand(2, 100, 3)
    seen = visible.repeat_interleave(100, 2)
    bias = torch.zeros(2, 100, 300).masked_fill(~seen, -torch.inf)
    with backends.use_backend("emulator"):
        expected = vk.cross_attention(q, k, v, visible=visible, tokens_per_tile=100, return_lse=True)
        for mask in (seen[:, None], seen[:, 0].contiguous(), bias[:, None], bias[:, None].bfloat16(), bias.mT.contiguous().mT[:, None]):  # fmt: skip
            found = vk.attention(q, k, v, mask=mask, return_lse=True)
            torch.testing.assert_close(found[0], expected[0], atol=2e-2, rtol=2e-2)
            torch.testing.assert_close(found[1], expected[1])


SELF_ATTENTION = [(197, 64), (257, 64), (257, 80), (257, 88), (257, 104), (577, 64), (576, 96), (729, 72), (1025, 64), (1370, 64)]  # fmt: skip


@pytest.mark.parametrize(("s", "d"), SELF_ATTENTION)
def test_tensor_core_work_is_little_more_than_needed(s: int, d: int) -> None:
    q, k, v = qkv(s, s, d)
    with backends.use_backend("emulator"), backends.emulation(counters=True, checks=False) as launches:
        vk.attention(q, k, v)
    issued = sum(launch.report["counters"]["tensor_flops"] for launch in launches)
    useful = 4 * (-(-s // 16) * 16) * (-(-s // 8) * 8) * d
    assert issued / useful <= (1.12 if s < 300 else 1.05) + 1e-9


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("d", [64, 72, 80, 88, 96, 104, 112, 128])
def test_memory_is_used_well(d: int, heads: int) -> None:
    """Whole sectors, also where rows of several heads are side by side; shared memory without bank conflicts."""
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in qkv(128, 333, d, heads))
    with backends.use_backend("emulator"), backends.emulation(counters=True, checks=False) as launches:
        vk.attention(q, k, v)
    (launch,) = launches
    traffic = launch.report["counters"]
    for kind in ("global_async", "global_store"):
        assert traffic[kind]["ideal_sectors"] >= 0.9 * traffic[kind]["sectors"]
    assert traffic["shared_load"]["wavefronts"] <= 1.05 * traffic["shared_load"]["ideal_wavefronts"]
    # Lanes that cross from one row to the next of an odd pitch meet a bank twice.
    assert traffic["shared_store"]["wavefronts"] <= 1.15 * traffic["shared_store"]["ideal_wavefronts"]
