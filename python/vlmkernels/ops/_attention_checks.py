"""Argument checks of the attention operators. Every message names the argument, what was given and the remedy."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vlmkernels.reference.attention import BOTTOM_RIGHT, NOT_CAUSAL, TOP_LEFT, Options

Causal = Literal["top_left", "bottom_right"]
Window = tuple[int | None, int | None]

MAX_HEAD_DIM = 256
CAUSAL = {None: NOT_CAUSAL, "top_left": TOP_LEFT, "bottom_right": BOTTOM_RIGHT}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def shape_text(tensor: Tensor) -> str:
    return "(" + ", ".join(str(size) for size in tensor.shape) + ")"


def check_query_key_value(query: Tensor, key: Tensor, value: Tensor, layout: str) -> None:
    """Types, dtype, device, rank, heads, head_dim and strides of query, key and value; `layout` is "(B, H, S, D)" or "(T, H, D)"."""
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)):
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    dtype = query.dtype
    if dtype not in _DTYPES:
        raise TypeError(f"query is {dtype}; attention takes float32, bfloat16 or float16: convert with .to(...)")
    if key.dtype != dtype or value.dtype != dtype:
        raise TypeError(
            f"query, key and value must have one dtype, got {dtype}, {key.dtype} and {value.dtype}: convert with .to({dtype})"
        )
    if key.device != query.device or value.device != query.device:
        raise ValueError(
            f"query, key and value must be on one device, got {query.device}, {key.device} and {value.device}"
        )
    q, k = query.shape, key.shape
    rank = len(layout.split(","))
    if len(q) != rank or len(k) != rank:
        name, tensor = ("query", query) if len(q) != rank else ("key", key)
        raise ValueError(f"{name} must be {layout}, got shape {shape_text(tensor)}; reshape it to {rank} dimensions")
    if value.shape != k:
        raise ValueError(f"value must have the shape of key {shape_text(key)}, got {shape_text(value)}")
    heads = 1  # the axis of the heads in both layouts
    if rank == 4 and q[0] != k[0]:
        raise ValueError(f"key has batch {k[0]} and query {q[0]}; expand one to the other's batch")
    if q[-1] != k[-1]:
        raise ValueError(f"key has head_dim {k[-1]} and query {q[-1]}; they must be equal")
    if q[-1] % 8 != 0 or not 0 < q[-1] <= MAX_HEAD_DIM:
        raise ValueError(
            f"query has head_dim {q[-1]}; it must be a multiple of 8 from 8 to {MAX_HEAD_DIM}: pad query, key and value with zeros and pass scale"
        )
    if (k[heads] == 0) != (q[heads] == 0) or (k[heads] != 0 and q[heads] % k[heads] != 0):
        raise ValueError(
            f"query has {q[heads]} heads, which is not a multiple of the {k[heads]} heads of key and value"
        )
    if query.stride(-1) != 1 or key.stride(-1) != 1 or value.stride(-1) != 1:
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if tensor.stride(-1) != 1:
                raise ValueError(
                    f"{name} has stride {tensor.stride(-1)} in its last dimension; it must be 1: call {name}.contiguous()"
                )


def make_options(
    head_dim: int,
    causal: Causal | None,
    window: Window | None,
    scale: float | None,
    softcap: float | None,
    tokens_per_tile: int = 0,
) -> Options:
    if causal is None and window is None and softcap is None and scale is None:
        return Options(scale=1.0 / math.sqrt(head_dim), tokens_per_tile=tokens_per_tile)
    if causal not in CAUSAL:
        raise ValueError(
            f'causal is {causal!r}; use None, "top_left" (key j <= query i) or "bottom_right" (key j <= i + Sk - Sq)'
        )
    left, right = _window_sides(window)
    if scale is None:
        scale = 1.0 / math.sqrt(head_dim)
    elif not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise ValueError(f"scale is {scale!r}; it must be a finite number, or None for 1 / sqrt(head_dim)")
    if softcap is not None and (not isinstance(softcap, (int, float)) or not math.isfinite(softcap) or softcap <= 0):
        raise ValueError(f"softcap is {softcap!r}; it must be a finite number above 0, or None")
    return Options(CAUSAL[causal], left, right, float(scale), float(softcap or 0.0), tokens_per_tile)


def _window_sides(window: Window | None) -> tuple[int, int]:
    if window is None:
        return -1, -1
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise ValueError(
            f"window is {window!r}; it must be a pair (left, right) of numbers of keys, None on a side for no limit"
        )
    sides = []
    for name, side in zip(("left", "right"), window, strict=True):
        if side is None:
            sides.append(-1)
        elif isinstance(side, bool) or not isinstance(side, int) or side < 0:
            raise ValueError(
                f"window has {name} side {side!r}; it must be an integer of at least 0, or None for no limit"
            )
        else:
            sides.append(side)
    return sides[0], sides[1]


def expand_mask(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask of any accepted form as a (B, Hq, Sq, Sk) view, without copying."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch.Tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool and mask.dtype not in (torch.float32, query.dtype):
        raise TypeError(
            f"mask is {mask.dtype}; use bool (True = may attend), float32 or the query's {query.dtype} (added to the scores)"
        )
    if mask.device != query.device:
        raise ValueError(f"mask is on {mask.device} and query on {query.device}; move the mask")
    if mask.requires_grad:
        raise NotImplementedError(
            "mask requires a gradient, and a mask gets none: pass mask.detach(), or use vlmkernels.reference for a learned bias"
        )
    batch, heads, seqlen_q, seqlen_k = query.shape[0], query.shape[1], query.shape[2], key.shape[2]
    full = (batch, heads, seqlen_q, seqlen_k)
    if mask.dim() == 2 and mask.dtype == torch.bool and mask.shape == (batch, seqlen_k):
        if batch == seqlen_q and batch != 1:
            raise ValueError(
                f"mask {shape_text(mask)} is ambiguous because batch and query length are both {batch}: "
                "pass mask[:, None, None, :] for key validity (B, Sk) or mask[None, None] for (Sq, Sk)"
            )
        mask = mask[:, None, None, :]
    try:
        return mask.expand(full)
    except RuntimeError:
        raise ValueError(
            f"mask has shape {shape_text(mask)}; it must broadcast to (B, Hq, Sq, Sk) = {full}, or be bool (B, Sk) = {(batch, seqlen_k)}"
        ) from None


def _check_bool(name: str, tensor: Tensor, query: Tensor, rank: int) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} is {tensor.dtype}; it must be bool: convert with .bool()")
    if tensor.device != query.device:
        raise ValueError(f"{name} is on {tensor.device} and query on {query.device}; move it")
    if tensor.dim() != rank:
        raise ValueError(f"{name} must have {rank} dimensions, got shape {shape_text(tensor)}")


def check_visible(visible: Tensor | None, tokens_per_tile: int | None, query: Tensor, key: Tensor) -> None:
    if visible is None:
        if tokens_per_tile is not None:
            raise ValueError("tokens_per_tile was given without visible; pass visible (B, Sq, n_tiles), or neither")
        return
    _check_bool("visible", visible, query, 3)
    if tokens_per_tile is None:
        raise ValueError("visible needs tokens_per_tile, the number of keys in each tile")
    if isinstance(tokens_per_tile, bool) or not isinstance(tokens_per_tile, int) or tokens_per_tile < 1:
        raise ValueError(f"tokens_per_tile is {tokens_per_tile!r}; it must be an integer of at least 1")
    batch, seqlen_q, seqlen_k = query.shape[0], query.shape[2], key.shape[2]
    if visible.shape[0] != batch or visible.shape[1] != seqlen_q:
        raise ValueError(
            f"visible has shape {shape_text(visible)}; it must be (B, Sq, n_tiles) = ({batch}, {seqlen_q}, n_tiles)"
        )
    if seqlen_k > visible.shape[2] * tokens_per_tile:
        raise ValueError(
            f"visible has {visible.shape[2]} tiles of tokens_per_tile = {tokens_per_tile} keys, fewer than the {seqlen_k} keys; every key needs a tile"
        )


def check_padding(query_padding: Tensor | None, key_padding: Tensor | None, query: Tensor, key: Tensor) -> None:
    if (query_padding is None) != (key_padding is None):
        given, missing = ("query_padding", "key_padding") if key_padding is None else ("key_padding", "query_padding")
        raise ValueError(
            f"{given} was given without {missing}: a pair is masked only where both are padding; for plain key padding use mask (B, Sk)"
        )
    if query_padding is None or key_padding is None:
        return
    _check_bool("query_padding", query_padding, query, 2)
    _check_bool("key_padding", key_padding, query, 2)
    if query_padding.shape != (query.shape[0], query.shape[2]):
        raise ValueError(
            f"query_padding has shape {shape_text(query_padding)}; it must be (B, Sq) = ({query.shape[0]}, {query.shape[2]})"
        )
    if key_padding.shape != (key.shape[0], key.shape[2]):
        raise ValueError(
            f"key_padding has shape {shape_text(key_padding)}; it must be (B, Sk) = ({key.shape[0]}, {key.shape[2]})"
        )


def check_cu_seqlens(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, query: Tensor, key: Tensor) -> None:
    """Form of the boundaries, what can be said without reading them."""
    for name, cu_seqlens in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        if not isinstance(cu_seqlens, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(cu_seqlens).__name__}")
        if cu_seqlens.dtype != torch.int32:
            raise TypeError(f"{name} is {cu_seqlens.dtype}; it must be int32: convert with .to(torch.int32)")
        if cu_seqlens.device != query.device:
            raise ValueError(f"{name} is on {cu_seqlens.device} and query on {query.device}; move it")
        if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
            raise ValueError(
                f"{name} has shape {shape_text(cu_seqlens)}; it must be (N + 1,) with the N + 1 boundaries of N sequences"
            )
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_k has {cu_seqlens_k.shape[0]} boundaries and cu_seqlens_q {cu_seqlens_q.shape[0]}; they must describe the same sequences"
        )


def check_cu_seqlens_values(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, query: Tensor, key: Tensor) -> None:
    """The boundaries themselves, of real CPU tensors. Reading them on a GPU would wait for it: kernels there stay within the tensors whatever the boundaries are."""
    if cu_seqlens_q.device.type != "cpu":
        return
    for name, cu_seqlens, tokens, total in (
        ("cu_seqlens_q", cu_seqlens_q, "query", query.shape[0]),
        ("cu_seqlens_k", cu_seqlens_k, "key", key.shape[0]),
    ):
        values = cu_seqlens.tolist()
        if values[0] != 0:
            raise ValueError(f"{name} starts at {values[0]}; it must start at 0")
        if values[-1] > total:
            raise ValueError(f"{name} ends at {values[-1]}, past the {total} rows of {tokens}")
        for n in range(len(values) - 1):
            if values[n + 1] < values[n]:
                raise ValueError(
                    f"{name} decreases from {values[n]} to {values[n + 1]} at sequence {n}; boundaries must not decrease"
                )
