"""The contrastive losses where only a GPU can show something: sizes of training, streams that are never waited for, graphs. The grid of cases runs on a GPU in
tests/ops/test_accuracy.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmkernels as vk
from vlmkernels import backends
from vlmkernels.verify.rule import compare

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no GPU"),
]

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda d: str(d).removeprefix("torch.")
)
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES = pytest.mark.parametrize("sigmoid", [False, True], ids=["info_nce", "sigmoid"])


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if against := backends.reasons("cuda", "contrastive", "cuda", torch.bfloat16):
        pytest.skip("; ".join(against))


def features(m: int, n: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unit rows; those of a pair are somewhat alike."""
    x = torch.randn(m, d, device="cuda")
    y = torch.randn(n, d, device="cuda")
    y[: min(m, n)] += 0.3 * x[: min(m, n)]
    return tuple(F.normalize(t, dim=1).to(dtype).requires_grad_() for t in (x, y))  # type: ignore[return-value]


def ours(sigmoid: bool) -> Loss:
    if sigmoid:
        return lambda x, y, s: vk.sigmoid_loss(x, y, s, torch.full((), -10.0, device="cuda"))
    return lambda x, y, s: vk.contrastive_loss(x, y, s)


def dense(sigmoid: bool) -> Loss:
    """As models write it."""

    def loss(x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        z = s * (x @ y.mT).to(s.dtype)
        if sigmoid:
            pairs = torch.eye(*z.shape, dtype=torch.bool, device="cuda")
            return -F.logsigmoid(torch.where(pairs, z - 10.0, 10.0 - z)).sum() / z.shape[0]
        targets = torch.arange(z.shape[0], device="cuda")
        return (F.cross_entropy(z, targets) + F.cross_entropy(z.mT[: z.shape[0]], targets)) / 2

    return loss


def evaluated(loss: Loss, x: Tensor, y: Tensor, scale: float, times: float = 1.0) -> list[Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    s = torch.full((), scale, dtype=dtype, device="cuda", requires_grad=True)
    value = loss(x, y, s)
    return [value.detach(), *torch.autograd.grad(value * times, (x, y, s))]


@DTYPES
@LOSSES
@pytest.mark.parametrize(("n", "d"), [(1000, 512), (4096, 768), (8192 + 300, 1152), (513, 2048)])
def test_sizes_of_training(n: int, d: int, sigmoid: bool, dtype: torch.dtype) -> None:
    x, y = features(n, n, d, dtype)
    times = float(n)  # or fp16 has no room for the gradients
    found = evaluated(ours(sigmoid), x, y, 20.0, times)
    again = evaluated(ours(sigmoid), x, y, 20.0, times)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)), "the same bits"
    peer = evaluated(dense(sigmoid), x, y, 20.0, times)
    exact = evaluated(dense(sigmoid), *(t.detach().double().requires_grad_() for t in (x, y)), 20.0, times)  # fmt: skip
    for name, f, p, e in zip(("loss", "grad image", "grad text", "grad scale"), found, peer, exact, strict=True):
        finding = compare(name, f, p, e, gradient=name != "loss")
        assert finding.passed, str(finding)


@LOSSES
def test_the_matrix_never_exists(sigmoid: bool) -> None:
    """40,000 x 40,000 logits are 3.2 GB in 16 bit."""
    x, y = features(40_000, 40_000, 512, torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    evaluated(ours(sigmoid), x, y, 10.0)
    assert torch.cuda.max_memory_allocated() - before < 500e6


@DTYPES
@LOSSES
def test_nobody_waits_for_the_gpu(sigmoid: bool, dtype: torch.dtype) -> None:
    x, y = features(300, 300, 64, dtype)
    expected = evaluated(ours(sigmoid), x, y, 10.0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = evaluated(ours(sigmoid), x, y, 10.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@LOSSES
def test_graph_capture(sigmoid: bool) -> None:
    """Captured and replayed on new contents."""
    x, y = features(600, 600, 128, torch.bfloat16)
    evaluated(ours(sigmoid), x, y, 10.0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = evaluated(ours(sigmoid), x, y, 10.0)
    with torch.no_grad():
        x.copy_(F.normalize(torch.randn_like(x), dim=1))
    graph.replay()
    expected = evaluated(ours(sigmoid), x, y, 10.0)
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
