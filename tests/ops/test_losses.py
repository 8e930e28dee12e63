"""What the accuracy grid does not show of the contrastive losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import vlmkernels as vk


def test_identical_rows_at_scale_100(backend):
    x = F.normalize(torch.ones(8, 16), dim=1)
    assert abs(vk.contrastive_loss(x, x, 100.0).item() - math.log(8)) < 1e-5


def test_orthogonal_rows_do_not_underflow(backend):
    x = torch.eye(12, 16)
    y = torch.eye(12, 16).roll(1, 0)
    assert abs(vk.contrastive_loss(x, y, 100.0).item() - 100.0) < 1e-3


def test_confident_negatives_keep_their_loss(backend):
    """softplus(-30) is 9e-14, not 0."""
    x, y = torch.ones(4, 4), -torch.ones(4, 4)
    loss = vk.sigmoid_loss(x, y, 7.5, 0.0, labels=None, reduction="sum").item()
    assert abs(loss / (16 * math.exp(-30)) - 1) < 1e-4


def test_reductions_and_logsumexp(backend):
    x, y = torch.randn(5, 8), torch.randn(5, 8)
    rows = vk.contrastive_loss(x, y, 2.0, reduction="none")
    torch.testing.assert_close(rows.mean(), vk.contrastive_loss(x, y, 2.0))
    torch.testing.assert_close(rows.sum(), vk.contrastive_loss(x, y, 2.0, reduction="sum"))
    z = 2.0 * x @ y.mT
    _, row_lse, column_lse = vk.contrastive_loss(x, y, 2.0, return_lse=True)
    torch.testing.assert_close(row_lse, z.logsumexp(1))
    torch.testing.assert_close(column_lse, z.logsumexp(0))
    torch.testing.assert_close(vk.contrastive_logsumexp(x, y, 2.0), (row_lse, column_lse))
    sig = vk.sigmoid_loss(x, y, 2.0, -1.0, reduction="none")
    torch.testing.assert_close(sig.sum() / 5, vk.sigmoid_loss(x, y, 2.0, -1.0))


def test_shards_merge_to_the_whole(backend):
    """logsumexp of the whole from that of two column blocks: what a ring over devices does."""
    x, y = torch.randn(6, 8), torch.randn(10, 8)
    left, _ = vk.contrastive_logsumexp(x, y[:4], 3.0)
    right, _ = vk.contrastive_logsumexp(x, y[4:], 3.0)
    torch.testing.assert_close(torch.logaddexp(left, right), vk.contrastive_logsumexp(x, y, 3.0)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_grads_in_one_call(backend, dtype):
    x, y = torch.randn(7, 8).to(dtype).requires_grad_(), torch.randn(9, 8).to(dtype).requires_grad_()
    scale, bias = torch.tensor([4.0], requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    loss = vk.sigmoid_loss(x, y, scale, bias, label_offset=1)
    found, grads = vk.sigmoid_loss_and_grads(x, y, scale, bias, label_offset=1)
    torch.testing.assert_close(found, loss.detach())
    for a, b in zip(grads, torch.autograd.grad(loss, (x, y, scale, bias)), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-6)
    loss = vk.contrastive_loss(x, y, scale, label_offset=1)
    found, grads = vk.contrastive_loss_and_grads(x, y, scale, label_offset=1)
    assert torch.equal(found, loss.detach())
    for a, b in zip(grads, torch.autograd.grad(loss, (x, y, scale)), strict=True):
        assert torch.equal(a, b)


def test_scale_gradient_is_the_dot_of_features_and_gradients(backend):
    x, y = torch.randn(33, 24, requires_grad=True), torch.randn(33, 24, requires_grad=True)
    for scale in (0.0, 2.5):
        s = torch.tensor(scale, requires_grad=True)
        dx, dy, ds = torch.autograd.grad(vk.contrastive_loss(x, y, s), (x, y, s))
        if scale:
            torch.testing.assert_close((x * dx).sum(), s.detach() * ds, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close((y * dy).sum(), s.detach() * ds, rtol=1e-4, atol=1e-6)
        z = (x @ y.mT).detach()
        expected = ((s.detach() * z).softmax(1) + (s.detach() * z).softmax(0) - 2 * torch.eye(33)).mul(z).sum() / 66
        torch.testing.assert_close(ds, expected, rtol=1e-4, atol=1e-5)


def test_zero_rows_normalise_to_zero(backend):
    x, y = torch.randn(4, 8), torch.randn(4, 8)
    x[1] = 0
    x.requires_grad_()
    vk.contrastive_loss(x, y, 5.0, normalize=True).backward()
    assert x.grad.isfinite().all()
    assert torch.equal(x.grad[1], torch.zeros(8))


def test_empty_inputs(backend):
    empty = torch.zeros(0, 8)
    assert vk.contrastive_loss(empty, empty, 1.0).item() == 0
    assert vk.sigmoid_loss(torch.randn(2, 8), empty, 1.0, 0.0, labels=None).item() == 0
    assert vk.contrastive_logsumexp(torch.randn(2, 8), empty, 1.0)[0].tolist() == [-math.inf, -math.inf]


def test_gradient_scaling_in_fp16_does_not_flush_gradients(backend):
    x, y = (torch.randn(64, 8).half().requires_grad_() for _ in range(2))
    loss = vk.sigmoid_loss(x, y, 1.0, -12.0, labels=None)
    loss.mul(65536.0).backward()
    assert (x.grad != 0).double().mean() > 0.95


def test_memory_stays_far_below_the_matrix(native):
    """Peak memory of 20,000 x 20,000 logits (1.6 GB in fp32) stays small."""
    import resource

    x = torch.randn(6000, 8, requires_grad=True)
    vk.contrastive_loss(x, x.detach(), 1.0).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    big = torch.randn(20_000, 8, requires_grad=True)
    vk.contrastive_loss(big, big.detach(), 1.0).backward()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_sigmoid_gradients_twice(backend: str) -> None:
    """A graph that is kept gives its gradients again."""
    g = torch.Generator().manual_seed(0)
    image, text = (torch.randn(40, 24, generator=g, requires_grad=True) for _ in range(2))
    scale, bias = torch.tensor(3.0, requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    loss = vk.sigmoid_loss(image, text, scale, bias)
    inputs = (image, text, scale, bias)
    first = torch.autograd.grad(loss, inputs, torch.tensor(0.5), retain_graph=True)
    second = torch.autograd.grad(loss, inputs, torch.tensor(2.0))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(4 * a, b, rtol=1e-5, atol=1e-7)
