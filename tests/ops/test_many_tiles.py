"""More tiles of keys than the kernels keep a bit for."""

from __future__ import annotations

import torch

import vlmkernels as vk


def test_many_tiles(backend: str) -> None:
    g = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, 50, 32, generator=g)
    key, value = (torch.randn(1, 2, 240, 32, generator=g) for _ in range(2))
    visible = torch.rand(1, 50, 80, generator=g) > 0.6
    visible[:, :20, :70] = False
    out = vk.cross_attention(query, key, value, visible=visible, tokens_per_tile=3)
    mask = visible.repeat_interleave(3, dim=-1)[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(query.double(), key.double(), value.double(), mask)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
