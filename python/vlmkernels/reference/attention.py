"""Attention in plain PyTorch, formula by formula: what every other backend is tested against.

    S = scale * Q K^T                          (softcap * tanh(S / softcap) where asked)
    S_ij = -inf where j is masked for i,       S_ij += bias_ij
    lse_i = log sum_j exp(S_ij),               P_ij = exp(S_ij - lse_i)
    O = P V

Vaswani et al., "Attention is all you need" (2017). The backward formulas are those of Dao et al., "FlashAttention" (2022), appendix B.
Arithmetic is at least fp32; double inputs stay double.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Options",
    "allowed_pairs",
    "attention",
    "attention_backward",
    "attention_varlen",
    "attention_varlen_backward",
]

NOT_CAUSAL, TOP_LEFT, BOTTOM_RIGHT = 0, 1, 2


class Options(NamedTuple):
    """What an attention call computes besides its tensors. `causal` is one of the constants above, a window side of -1 is unlimited, softcap 0 is none."""

    causal: int = NOT_CAUSAL
    window_left: int = -1
    window_right: int = -1
    scale: float = 1.0
    softcap: float = 0.0
    tokens_per_tile: int = 0


def allowed_pairs(
    seqlen_q: int,
    seqlen_k: int,
    options: Options,
    visible: Tensor | None = None,
    query_padding: Tensor | None = None,
    key_padding: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Bool tensor broadcastable to (B, 1, Sq, Sk): True where query i may attend to key j, from everything but `mask`."""
    i = torch.arange(seqlen_q, device=device)[:, None]
    j = torch.arange(seqlen_k, device=device)[None, :]
    if options.causal != TOP_LEFT:
        i = i + (seqlen_k - seqlen_q)
    allowed = torch.ones(seqlen_q, seqlen_k, dtype=torch.bool, device=device)
    if options.causal != NOT_CAUSAL:
        allowed = allowed & (j <= i)
    if options.window_left >= 0:
        allowed = allowed & (j >= i - options.window_left)
    if options.window_right >= 0:
        allowed = allowed & (j <= i + options.window_right)
    allowed = allowed[None, None]
    if visible is not None:
        tile = torch.arange(seqlen_k, device=device) // options.tokens_per_tile
        allowed = allowed & visible[:, None, :, tile]
    if query_padding is not None and key_padding is not None:
        allowed = allowed & ~(query_padding[:, None, :, None] & key_padding[:, None, None, :])
    return allowed


def _scores(
    query: Tensor, key: Tensor, mask: Tensor | None, allowed: Tensor, options: Options
) -> tuple[Tensor, Tensor | None]:
    """Masked scores S and, with softcap, dS/d(scaled score)."""
    scores = options.scale * query @ key.mT
    slope = None
    if options.softcap:
        capped = torch.tanh(scores / options.softcap)
        scores, slope = options.softcap * capped, 1 - capped * capped
    if mask is not None:
        if mask.dtype == torch.bool:
            allowed = allowed & mask
        else:
            scores = scores + mask.to(scores.dtype)
    return scores.masked_fill(~allowed, -torch.inf), slope


def _upcast(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


def _repeat_heads(tensor: Tensor, heads: int) -> Tensor:
    return tensor if tensor.shape[1] == heads else tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def _probabilities(scores: Tensor, lse: Tensor) -> Tensor:
    """exp(S - lse), 0 in rows that see nothing (where lse is -inf)."""
    return torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None])


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    visible: Tensor | None = None,
    query_padding: Tensor | None = None,
    key_padding: Tensor | None = None,
    options: Options = Options(),  # noqa: B008 (immutable)
) -> tuple[Tensor, Tensor]:
    """query (B, Hq, Sq, D), key and value (B, Hk, Sk, D), mask broadcastable to (B, Hq, Sq, Sk) -> out like query, lse (B, Hq, Sq)."""
    q, k, v = _upcast(query, key, value)
    k, v = _repeat_heads(k, q.shape[1]), _repeat_heads(v, q.shape[1])
    allowed = allowed_pairs(q.shape[2], k.shape[2], options, visible, query_padding, key_padding, q.device)
    scores, _ = _scores(q, k, mask, allowed, options)
    lse = torch.logsumexp(scores, dim=-1) if k.shape[2] else scores.new_full(scores.shape[:-1], -torch.inf)
    out = _probabilities(scores, lse) @ v
    return out.to(query.dtype), lse


def attention_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    mask: Tensor | None = None,
    visible: Tensor | None = None,
    query_padding: Tensor | None = None,
    key_padding: Tensor | None = None,
    options: Options = Options(),  # noqa: B008 (immutable)
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value.

    dV = P^T dO,  dP = dO V^T,  dS = P * (dP - rowsum(dO * O) + dlse),  dQ = scale dS K,  dK = scale dS^T Q; heads of a group are summed.
    """
    q, k, v, do, o = _upcast(query, key, value, grad_out, out)
    batch, heads_k, seqlen_k, head_dim = k.shape
    k, v = _repeat_heads(k, q.shape[1]), _repeat_heads(v, q.shape[1])
    allowed = allowed_pairs(q.shape[2], seqlen_k, options, visible, query_padding, key_padding, q.device)
    scores, slope = _scores(q, k, mask, allowed, options)
    p = _probabilities(scores, lse)
    delta = (do * o).sum(-1)
    if grad_lse is not None:
        delta = delta - grad_lse
    ds = p * (do @ v.mT - delta[..., None])
    if slope is not None:
        ds = ds * slope
    dq = options.scale * ds @ k
    dk = options.scale * ds.mT @ q
    dv = p.mT @ do
    group = q.shape[1] // max(heads_k, 1)
    dk = dk.reshape(batch, heads_k, group, seqlen_k, head_dim).sum(2)
    dv = dv.reshape(batch, heads_k, group, seqlen_k, head_dim).sum(2)
    return dq.to(query.dtype), dk.to(key.dtype), dv.to(value.dtype)


def _sequences(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor) -> list[tuple[slice, slice]]:
    q, k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    return [(slice(q[n], q[n + 1]), slice(k[n], k[n + 1])) for n in range(len(q) - 1)]


def attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    options: Options = Options(),  # noqa: B008 (immutable)
) -> tuple[Tensor, Tensor]:
    """query (Tq, Hq, D), key and value (Tk, Hk, D): one attention per sequence; rows of no sequence give 0 and lse -inf. lse is (Hq, Tq)."""
    out = torch.zeros_like(query)
    lse = query.new_full(
        (query.shape[1], query.shape[0]), -torch.inf, dtype=torch.promote_types(query.dtype, torch.float32)
    )
    for rows, columns in _sequences(cu_seqlens_q, cu_seqlens_k):
        q, k, v = (t.transpose(0, 1)[None] for t in (query[rows], key[columns], value[columns]))
        part, part_lse = attention(q, k, v, options=options)
        out[rows] = part[0].transpose(0, 1)
        lse[:, rows] = part_lse[0]
    return out, lse


def attention_varlen_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    options: Options = Options(),  # noqa: B008 (immutable)
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the packed query, key and value; zero outside all sequences."""
    dq, dk, dv = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for rows, columns in _sequences(cu_seqlens_q, cu_seqlens_k):
        do, q, k, v, o = (
            t.transpose(0, 1)[None] for t in (grad_out[rows], query[rows], key[columns], value[columns], out[rows])
        )
        part_dlse = None if grad_lse is None else grad_lse[None, :, rows]
        parts = attention_backward(do, part_dlse, q, k, v, o, lse[None, :, rows], options=options)
        dq[rows], dk[columns], dv[columns] = (part[0].transpose(0, 1) for part in parts)
    return dq, dk, dv
