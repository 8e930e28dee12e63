"""Merging attention over parts of the keys in plain PyTorch: what every other backend is tested against.

    lse = log sum_i exp(lse_i),   w_i = exp(lse_i - lse),   O = sum_i w_i O_i

over splits i, as in section 3.1 of Dao et al., "FlashAttention" (2022), and "Flash-Decoding". Arithmetic is at least fp32; double inputs stay double.
A split of weight 0 contributes nothing, whatever it holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["merge_attention", "merge_attention_backward"]


def _weights(logsumexps: Tensor, lse: Tensor) -> Tensor:
    """exp(lse_i - lse), 0 where nothing has weight (lse is -inf)."""
    return torch.exp(logsumexps - lse.masked_fill(lse == -torch.inf, 0.0))


def merge_attention(outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
    """outputs (N, ..., D), logsumexps (N, ...) -> out (..., D) like outputs, lse (...) like logsumexps."""
    # Without parts the sum is empty and its logarithm -inf.
    lse = torch.logsumexp(logsumexps, dim=0) if logsumexps.shape[0] else logsumexps.sum(0) - torch.inf
    w = _weights(logsumexps, lse)[..., None]
    parts = torch.where(w == 0, 0.0, w * outputs.to(w.dtype))
    return parts.sum(0).to(outputs.dtype), lse


def merge_attention_backward(
    grad_out: Tensor, grad_lse: Tensor | None, outputs: Tensor, logsumexps: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of outputs and logsumexps.

    dO_i = w_i dO,   dlse_i = w_i (<dO, O_i> - sum_j w_j <dO, O_j> + dlse)
    """
    w = _weights(logsumexps, lse)
    go = grad_out.to(w.dtype)
    grad_outputs = w[..., None] * go
    dots = torch.where(w == 0, 0.0, (go * outputs.to(w.dtype)).sum(-1))
    inner = dots - (w * dots).sum(0)
    if grad_lse is not None:
        inner = inner + grad_lse
    grad_logsumexps = torch.where(w == 0, 0.0, w * inner)
    return grad_outputs.to(outputs.dtype), grad_logsumexps
