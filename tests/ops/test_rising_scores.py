"""Scores that rise along the keys: what was added up before has to be scaled again and again."""

from __future__ import annotations

import pytest
import torch

import vlmkernels as vk


@pytest.mark.parametrize("sq", [1, 5, 9, 70])
@pytest.mark.parametrize("step", [0.02, 0.5])  # of a score from one key to the next, in units of its exponent
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_rising_scores(sq: int, step: float, dtype: torch.dtype, backend: str) -> None:
    g = torch.Generator().manual_seed(0)
    sk, d = 400, 48
    query, value = torch.rand(1, 2, sq, d, generator=g) + 0.5, torch.randn(1, 1, sk, d, generator=g)
    key = (torch.arange(sk)[:, None] * step / d).expand(1, 1, sk, d)
    query, key, value = query.to(dtype), key.to(dtype).contiguous(), value.to(dtype)
    scores = query.double() @ key.double().mT
    out, lse = vk.attention(query, key, value, scale=1.0, return_lse=True)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=3e-6, atol=3e-6)
    near = {torch.float32: 1e-4, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(out.double(), scores.softmax(-1) @ value.double(), rtol=near, atol=near)
