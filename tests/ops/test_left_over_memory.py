"""Kernels reuse scratch memory: what one call leaves there does not reach the next."""

from __future__ import annotations

import pytest
import torch

import vlmkernels as vk


def _gradients(fill: float | None, options: dict[str, object]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, s, 56, generator=g) for s in (65, 63, 63))
    if fill is not None:
        query, key, value = (torch.full_like(t, fill) for t in (query, key, value))
    inputs = [t.requires_grad_() for t in (query, key, value)]
    out = vk.attention(*inputs, **options)
    return [out, *torch.autograd.grad(out.sum(), inputs)]


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"causal": "top_left"}, {"window": (20, 5)}], ids=str)
def test_attention_after_nan(options: dict[str, object], backend: str) -> None:
    before = _gradients(None, options)
    for fill in (float("nan"), float("inf")):
        _gradients(fill, options)
        for a, b in zip(before, _gradients(None, options), strict=True):
            assert torch.equal(a, b)
            assert torch.isfinite(b).all()
