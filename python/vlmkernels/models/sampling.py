"""From next-token scores to the next token."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["choose_next"]


def choose_next(
    scores: Tensor,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """scores (B, vocabulary) -> token ids (B,). Temperature 0 is the maximum; otherwise a draw from softmax(scores / temperature) among the `top_k` likeliest tokens
    and the smallest set whose probability reaches `top_p` (Holtzman et al., "The curious case of neural text degeneration", 2020)."""
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; give 0 for the likeliest token or a positive number")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; give at least 1, or None")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; give a number in (0, 1], or None")
    if temperature == 0:
        return scores.argmax(-1)
    scores = scores.float() / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if top_p is not None:
        ordered, order = scores.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        beyond = shares.cumsum(-1) - shares >= top_p  # the token that reaches top_p stays
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf"))
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
