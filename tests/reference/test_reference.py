"""The reference is what the other tests believe, so it is checked by itself: against torch's own functions and by finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

import vlmkernels as vk
from vlmkernels import backends
from vlmkernels.reference import contrastive as losses
from vlmkernels.reference import patch_embed as patches


@pytest.fixture(autouse=True)
def _reference():
    with backends.use_backend("reference"):
        yield


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_attention_is_torch_attention() -> None:
    q, k, v = leaf(2, 4, 5, 8), leaf(2, 2, 7, 8), leaf(2, 2, 7, 8)
    mask = torch.rand(2, 1, 5, 7) > 0.3
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(vk.attention(q, k, v, mask=mask), expected)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(vk.attention(q, k, v, causal="top_left"), expected)


@pytest.mark.parametrize(
    "options", [{}, {"causal": "bottom_right"}, {"window": (2, 1), "softcap": 3.0}, {"return_lse": True}]
)
def test_attention_gradients(options: dict) -> None:
    assert gradcheck(
        lambda q, k, v: vk.attention(q, k, v, **options), (leaf(1, 2, 4, 8), leaf(1, 1, 5, 8), leaf(1, 1, 5, 8))
    )


def test_varlen_gradients() -> None:
    a, b = torch.tensor([0, 2, 5], dtype=torch.int32), torch.tensor([0, 3, 4], dtype=torch.int32)
    assert gradcheck(lambda q, k, v: vk.attention_varlen(q, k, v, a, b), (leaf(5, 2, 8), leaf(4, 1, 8), leaf(4, 1, 8)))


def test_patch_embed_is_convolution() -> None:
    x, w, b = leaf(2, 3, 9, 12), leaf(5, 3, 4, 3), leaf(5)
    torch.testing.assert_close(vk.patch_embed(x, w, b), F.conv2d(x, w, b, stride=(4, 3)).flatten(2).mT)
    x, w = leaf(2, 4, 3, 8, 8), leaf(5, 3, 2, 4, 4)
    torch.testing.assert_close(
        vk.patch_embed(x, w, layout="BTCHW"), F.conv3d(x.transpose(1, 2), w, stride=(2, 4, 4)).flatten(2).mT
    )


def test_packed_orders_are_the_flattened_patches() -> None:
    pixels, weight = leaf(1, 3, 8, 8), leaf(5, 3, 4, 4)
    expected = vk.patch_embed(pixels, weight)[0]
    cut = F.unfold(pixels, 4, stride=4)[0].mT
    torch.testing.assert_close(vk.patch_embed_packed(cut.contiguous(), weight, order="CPP"), expected)
    last = cut.view(-1, 3, 4, 4).movedim(1, -1).flatten(1)
    torch.testing.assert_close(vk.patch_embed_packed(last.contiguous(), weight, order="PPC"), expected)


def test_patch_embed_gradients() -> None:
    inputs = (leaf(2, 3, 5, 4), leaf(4, 3, 2, 2), leaf(4), leaf(5, 4), leaf(1, 4))
    assert gradcheck(lambda x, w, b, p, c: vk.patch_embed(x, w, b, position=p, prefix=c, std=[0.5, 2.0, 1.0]), inputs)
    assert gradgradcheck(lambda x, w: patches.patch_embed(x, w), (leaf(1, 1, 2, 2), leaf(2, 1, 2, 2)))


def test_contrastive_loss_is_cross_entropy() -> None:
    x, y = leaf(6, 5), leaf(6, 5)
    z, target = 3.0 * x @ y.mT, torch.arange(6)
    for smoothing in (0.0, 0.2):
        expected = (
            F.cross_entropy(z, target, label_smoothing=smoothing)
            + F.cross_entropy(z.mT, target, label_smoothing=smoothing)
        ) / 2
        torch.testing.assert_close(losses.contrastive_loss(x, y, 3.0, label_smoothing=smoothing), expected)
        torch.testing.assert_close(vk.contrastive_loss(x, y, 3.0, label_smoothing=smoothing), expected)


def test_sigmoid_loss_is_logsigmoid() -> None:
    x, y = leaf(6, 5), leaf(6, 5)
    z = 3.0 * x @ y.mT - 2.0
    expected = -F.logsigmoid(z * (2 * torch.eye(6, dtype=z.dtype) - 1)).sum() / 6
    torch.testing.assert_close(losses.sigmoid_loss(x, y, 3.0, -2.0), expected)
    torch.testing.assert_close(vk.sigmoid_loss(x, y, 3.0, -2.0), expected)


def test_loss_gradients() -> None:
    ids = torch.tensor([0, 1, 0, 2])
    scale, bias = (
        torch.tensor(2.0, dtype=torch.float64, requires_grad=True),
        torch.tensor(-1.0, dtype=torch.float64, requires_grad=True),
    )
    x, y = leaf(4, 3), leaf(4, 3)
    for normalize in (False, True):
        assert gradcheck(
            lambda x, y, s, n=normalize: vk.contrastive_loss(x, y, s, labels=ids, label_smoothing=0.1, normalize=n),
            (x, y, scale),
        )
        assert gradcheck(
            lambda x, y, s, b, n=normalize: vk.sigmoid_loss(x, y, s, b, labels=ids, normalize=n), (x, y, scale, bias)
        )
    assert gradgradcheck(lambda x, y: losses.contrastive_loss(x, y, 2.0), (x, y))
