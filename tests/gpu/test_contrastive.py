"""Contrastive losses on the emulator: what the grid of cases does not show. Every launch is checked for races, accesses outside the tensors and uninitialised reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmkernels as vk
from vlmkernels import backends, images
from vlmkernels.ops import contrastive
from vlmkernels.verify import check_accuracy
from vlmkernels.verify.grid import loss_cases

WHY_NOT = backends.native_error if backends.native is None else images.missing("contrastive")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "kernels are there")

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda d: str(d).removeprefix("torch.")
)


@pytest.fixture(autouse=True)
def _emulator() -> Iterator[None]:
    with backends.use_backend("emulator"):
        yield


def features(m: int, n: int, d: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(m + 1000 * n + d)
    return tuple(torch.randn(rows, d, generator=g).to(dtype).requires_grad_() for rows in (m, n))  # type: ignore[return-value]


def both_losses(x: Tensor, y: Tensor, **options: Any) -> list[Tensor]:
    """Losses and all gradients."""
    scale, bias = torch.tensor(3.0, requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    found = []
    for loss in (vk.contrastive_loss(x, y, scale, **options), vk.sigmoid_loss(x, y, scale, bias, **options)):
        found += [loss.detach(), *torch.autograd.grad(loss, (x, y, scale, bias), allow_unused=True)]
    return [t for t in found if t is not None]


SHAPES = [
    ((1, 3, 2), {}),
    ((127, 129, 63), {"label_offset": 2}),
    ((129, 130, 72), {"label_smoothing": 0.1}),
    ((65, 257, 130), {"labels": 5, "label_smoothing": 0.1}),
    ((257, 64, 33), {"labels": 40, "normalize": True}),
    ((128, 128, 128), {"normalize": True}),
    ((5, 300, 8), {"label_offset": 200, "symmetric": False}),
    ((192, 64, 64), {"labels": 1}),
]


@DTYPES
@pytest.mark.parametrize(("sizes", "options"), SHAPES, ids=lambda v: str(v))
def test_ragged_sizes(sizes: tuple[int, int, int], options: dict[str, Any], dtype: torch.dtype) -> None:
    """Around the edges of warps, tiles and stages."""
    for case in loss_cases("", sizes, options):
        failed = [str(finding) for finding in check_accuracy(case, dtype) if not finding.passed]
        assert not failed, "\n".join(failed)


@DTYPES
@pytest.mark.parametrize("options", [{"label_offset": 9}, {"labels": 12, "normalize": True}], ids=["diagonal", "groups"])  # fmt: skip
def test_chunks(options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums and statistics of many chunks are those of one."""
    monkeypatch.setattr(contrastive, "CHUNK_SIDE", 1)  # a single tile
    for case in loss_cases("", (201, 291, 72), options):
        with backends.emulation() as launches:
            failed = [str(finding) for finding in check_accuracy(case, dtype) if not finding.passed]
        assert not failed, "\n".join(failed)
        side = 64 if dtype == torch.float32 else 128
        products = [launch for launch in launches if "products" in launch.plan["kernel"]]
        assert len(products) == -(-201 // side) * -(-291 // side)


@DTYPES
def test_where_sums_lie_does_not_change_them(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the gradients and the workspace, or where rows are no multiples of 8 bytes in the workspace alone."""
    monkeypatch.setattr(contrastive, "CHUNK_SIDE", 128)
    x, y = features(150, 300, 72, dtype)
    longer = (F.pad(t.detach(), (0, 1)).requires_grad_() for t in (x, y))
    for found, expected in zip(both_losses(x, y), both_losses(*longer), strict=True):
        assert torch.equal(found, expected[..., :72] if expected.dim() == 2 else expected)


@DTYPES
@pytest.mark.parametrize("d", [130, 132])
def test_schedules_do_not_change_the_bits(d: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "CHUNK_SIDE", 128)
    groups = torch.arange(150) // 3, torch.arange(200) // 4
    x, y = features(150, 200, d, dtype)
    for options in ({"normalize": True}, {"labels": groups}):
        expected = both_losses(x, y, **options)
        for seed in range(2):
            with backends.emulation(schedule="random", seed=seed):
                assert all(torch.equal(a, b) for a, b in zip(both_losses(x, y, **options), expected, strict=True))


@DTYPES
@pytest.mark.parametrize("d", [64, 40, 37])
def test_rows_of_any_alignment(d: int, dtype: torch.dtype) -> None:
    """NaN in every gap of a strided tensor; the bits are those of contiguous ones."""
    tight = features(70, 130, d, dtype)
    expected = both_losses(*tight)

    def within(t: Tensor, before: int, behind: int) -> Tensor:
        wide = torch.full((t.shape[0] + 2, d + before + behind), float("nan"), dtype=dtype)
        return wide[1:-1, before : before + d].copy_(t.detach()).requires_grad_()

    for before, behind in ((8, 8), (2, 4), (1, 2), (0, 1)):
        found = both_losses(*(within(t, before, behind) for t in tight))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@DTYPES
def test_logits_far_apart(dtype: torch.dtype) -> None:
    """At scale 100: identical rows; orthogonal ones; rows whose largest cosine is 0, where a fixed maximum of 1 / T would leave nothing of any sum."""
    ones = F.normalize(torch.ones(130, 16), dim=1).to(dtype)
    same = vk.contrastive_loss(ones, ones, 100.0).item()
    assert abs(same - math.log(130)) < 1e-4
    x = torch.eye(130, 136).to(dtype)
    assert abs(vk.contrastive_loss(x, x.roll(1, 0), 100.0).item() - 100.0) < 1e-3
    wide = torch.eye(130, 260).to(dtype)
    row, column = vk.contrastive_logsumexp(wide, wide.roll(130, 1), 100.0)
    assert (row - math.log(130)).abs().max() < 1e-5
    assert (column - math.log(130)).abs().max() < 1e-5
    below, _ = vk.contrastive_logsumexp(x, -x, 1e4)
    assert torch.allclose(below, torch.tensor(129.0).log().expand(130))
    opposite, _ = vk.contrastive_logsumexp(x[:1], -x[:1], 1e4)
    assert opposite.item() == -1e4


@DTYPES
def test_confident_pairs(dtype: torch.dtype) -> None:
    """softplus(-30) is 9e-14 and not 0, of negatives and of positives."""
    x, y = torch.ones(4, 4, dtype=dtype, requires_grad=True), torch.full((4, 4), -1.0, dtype=dtype)
    few = math.exp(-30)
    loss = vk.sigmoid_loss(x, y, 7.5, 0.0, labels=None, reduction="sum")
    assert abs(loss.item() / (16 * few) - 1) < 1e-4
    positive = vk.sigmoid_loss(x, -y, 7.5, 0.0, labels=torch.zeros(4, dtype=torch.int64), reduction="sum")
    assert abs(positive.item() / (16 * few) - 1) < 1e-4
    # fp16 holds those of G that are within 2^26 of the largest there can be.
    some = vk.sigmoid_loss(x, y, 3.0, 0.0, labels=None, reduction="sum")
    (gradient,) = torch.autograd.grad(some * 2.0**10, x)
    assert (gradient.double() / (-4 * 3.0 * math.exp(-12) * 2.0**10) - 1).abs().max() < 1e-2


def test_logits_and_diagonal_are_not_rounded() -> None:
    """Cosines near 1 at scale 100: bf16 logits would be wrong by 0.25. p_ii - 1 is far below what bf16 has of either."""
    g = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(70, 64, generator=g), dim=1).bfloat16().requires_grad_()
    y = (x.detach().float() + 0.02 * torch.randn(70, 64, generator=g)).bfloat16().requires_grad_()
    loss = vk.contrastive_loss(x, y, 100.0)
    found = torch.autograd.grad(loss, (x, y))
    xd, yd = (t.detach().double().requires_grad_() for t in (x, y))
    z = 100 * xd @ yd.mT
    exact = (F.cross_entropy(z, torch.arange(70)) + F.cross_entropy(z.mT, torch.arange(70))) / 2
    assert abs(loss.item() - exact.item()) < 2e-5 * exact.item() + 1e-6
    for f, e in zip(found, torch.autograd.grad(exact, (xd, yd)), strict=True):
        # Half a unit of the result, and one of the negatives' probabilities.
        assert (f.double() - e).norm() < 2.0**-8 * e.norm()


def test_small_gradients_in_fp16() -> None:
    """Probabilities of 1 / 300 of weights of 1 / 300, and the loss scaled to what fp16 can hold of the results."""
    x, y = features(300, 300, 40, torch.float16)
    loss = vk.contrastive_loss(x, y, 0.01, labels=torch.arange(300))
    found = torch.autograd.grad(loss * 2.0**14, (x, y))
    xd, yd = (t.detach().double().requires_grad_() for t in (x, y))
    z = 0.01 * xd @ yd.mT
    exact = (F.cross_entropy(z, torch.arange(300)) + F.cross_entropy(z.mT, torch.arange(300))) / 2
    for f, e in zip(found, torch.autograd.grad(exact * 2.0**14, (xd, yd)), strict=True):
        assert (f.double() - e).norm() < 1e-3 * e.norm()


@DTYPES
@pytest.mark.parametrize("normalize", [False, True])
def test_scale_gradient_is_the_dot_of_features_and_gradients(normalize: bool, dtype: torch.dtype) -> None:
    """<X, dX> = <Y, dY> = s ds, and through the normalisation 0; the bias of InfoNCE would get exactly nothing."""
    x, y = features(150, 200, 72, dtype)
    bias = torch.tensor(-2.0)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda s: vk.contrastive_loss(x, y, s, normalize=normalize),
        lambda s: vk.sigmoid_loss(x, y, s, bias, normalize=normalize),
    ]
    for scale in (2.5, -1.0, 0.0):
        s = torch.tensor(scale, requires_grad=True)
        for loss in losses:
            dx, dy, ds = torch.autograd.grad(loss(s), (x, y, s))
            size = (x.double() * dx.double()).abs().sum().item() + (y.double() * dy.double()).abs().sum().item()
            tolerance = size * torch.finfo(dtype).eps / 8
            expected = 0.0 if normalize else scale * ds.item()
            assert abs((x.double() * dx.double()).sum().item() - expected) <= tolerance + 1e-7
            assert abs((y.double() * dy.double()).sum().item() - expected) <= tolerance + 1e-7
            if scale == 0.0:
                assert ds.abs() > 1e-3


def test_not_a_number_stays_in_its_row_and_column() -> None:
    x, y = features(130, 140, 64, torch.float32)
    with torch.no_grad():
        x[77, 3] = float("nan")
    row, column = vk.contrastive_logsumexp(x, y, 1.0)
    assert row.isnan().nonzero().flatten().tolist() == [77]
    assert column.isnan().all()
    losses = vk.sigmoid_loss(x, y, 1.0, 0.0, reduction="none")
    assert losses.isnan().nonzero().flatten().tolist() == [77]


@DTYPES
def test_empty_inputs(dtype: torch.dtype) -> None:
    for m, n in ((0, 0), (3, 0), (0, 3)):
        x, y = features(m, n, 8, dtype)
        row, column = vk.contrastive_logsumexp(x, y, 1.0)
        assert row.tolist() == [-math.inf] * m
        assert column.tolist() == [-math.inf] * n
        scale, bias = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
        for loss in (vk.contrastive_loss(x, y, scale, labels=(torch.zeros(m, dtype=torch.int64), torch.zeros(n, dtype=torch.int64))),
                     vk.sigmoid_loss(x, y, scale, bias, labels=None)):  # fmt: skip
            assert loss.item() == 0
            for gradient in torch.autograd.grad(loss, (x, y, scale, bias), allow_unused=True):
                assert gradient is None or not gradient.any()


def counted(function: Callable[[], Any]) -> list[tuple[str, dict[str, Any]]]:
    with backends.emulation(counters=True, checks=False) as launches:
        function()
    return [(launch.plan["kernel"], launch.report["counters"]) for launch in launches]


def test_tensor_core_work() -> None:
    """4 U for InfoNCE and 3 U for the sigmoid loss, U = 2 M N D; three times as much where fp32 is three products."""
    for dtype, times in ((torch.bfloat16, 1), (torch.float32, 3)):
        x, y = features(256, 384, 128, dtype)
        u = 2 * 256 * 384 * 128 * times
        scale = torch.tensor(1.0, requires_grad=True)
        for loss, products in (
            (lambda s, x=x, y=y: vk.contrastive_loss(x, y, s), 4),
            (lambda s, x=x, y=y: vk.sigmoid_loss(x, y, s, torch.tensor(-1.0)), 3),
        ):
            found = counted(lambda loss=loss, scale=scale: loss(scale).backward())  # type: ignore[misc]
            assert sum(counters["tensor_flops"] for _, counters in found) == products * u


@DTYPES
def test_memory_is_used_well(dtype: torch.dtype) -> None:
    """Whole sectors, and no bank conflicts at all."""
    x, y = features(256, 256, 256, dtype)
    for kernel, traffic in counted(lambda: both_losses(x, y)):
        for kind in ("global_async", "global_load", "global_store"):
            assert traffic[kind]["ideal_sectors"] >= 0.9 * traffic[kind]["sectors"], (kernel, kind)
        for kind in ("shared_load", "shared_store"):
            assert traffic[kind]["wavefronts"] == traffic[kind]["ideal_wavefronts"], (kernel, kind)
