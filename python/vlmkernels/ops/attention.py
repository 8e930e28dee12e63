"""Attention: O = softmax(scale Q K^T + mask) V without the Sq x Sk matrix, forward and backward.

Vaswani et al., "Attention is all you need" (2017); Dao et al., "FlashAttention" (2022). The same mathematics in plain PyTorch:
:mod:`vlmkernels.reference.attention`.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.ops import _attention_checks as checks
from vlmkernels.ops._attention_checks import Causal, Window
from vlmkernels.ops._framework import (
    aligned,
    autocast_dtype,
    define,
    eager,
    needs_grad,
    refuse_double_backward,
    undisturbed,
    workspace,
)
from vlmkernels.reference import attention as reference
from vlmkernels.reference.attention import Options

__all__ = ["attention", "cross_attention", "scaled_dot_product_attention"]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: Causal | None = None,
    window: Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Self- or cross-attention of dense batches.

    out_i = sum_j P_ij value_j,  P_ij = exp(S_ij - lse_i),  lse_i = log sum_j exp(S_ij),  S_ij = scale <query_i, key_j> (+ mask_ij).

    Args:
        query: (B, Hq, Sq, D), float32, bfloat16 or float16; D a multiple of 8 up to 256; any strides with a contiguous last dimension.
        key, value: (B, Hk, Sk, D) in the same dtype; Hq is a multiple of Hk (grouped heads: query head h reads head h // (Hq / Hk)).
        mask: bool (True = may attend), or float32 or the query's dtype (added to the scores), broadcastable to (B, Hq, Sq, Sk); or bool (B, Sk), key validity.
            It gets no gradient.
        causal: ``"top_left"`` keeps keys j <= i, ``"bottom_right"`` keys j <= i + Sk - Sq.
        window: (left, right) keeps keys from i' - left to i' + right, where i' is i for ``causal="top_left"`` and i + Sk - Sq otherwise; None: no limit.
        scale: multiplier of the scores, 1 / sqrt(D) by default.
        softcap: scores become softcap * tanh(score / softcap) before the mask.
        return_lse: also return the logsumexp.

    Returns:
        out (B, Hq, Sq, D) with the strides of the query, and with `return_lse` a pair (out, lse), lse (B, Hq, Sq) float32, natural logarithm. A row that
        sees no key has out 0 and lse -inf. Both are differentiable.

    Raises:
        ValueError, TypeError, NotImplementedError: naming the argument and the remedy.
    """
    if mask is None and window is None and softcap is None and not return_lse:
        out = _shortcut(query, key, value, causal, scale)
        if out is not None:
            return out
    return _dense(query, key, value, mask, None, None, None, None, causal, window, scale, softcap, return_lse)


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    visible: Tensor | None = None,
    tokens_per_tile: int | None = None,
    query_padding: Tensor | None = None,
    key_padding: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Attention of text queries over image keys: :func:`attention` with the masks of vision-language models in O(S) memory.

    Args:
        visible: bool (B, Sq, n_tiles): row i sees the keys of tile t only where True; key j is in tile j // tokens_per_tile. Blocks of keys that no row of a block of
            queries sees are not computed.
        tokens_per_tile: keys per tile; n_tiles * tokens_per_tile is at least Sk.
        query_padding, key_padding: bool (B, Sq) and (B, Sk): a pair is masked where both are True (the aspect-ratio mask of Llama 3.2 Vision).
        Others as in :func:`attention`.
    """
    return _dense(
        query,
        key,
        value,
        mask,
        visible,
        tokens_per_tile,
        query_padding,
        key_padding,
        None,
        None,
        scale,
        softcap,
        return_lse,
    )


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` by its own signature and meaning, for replacing one name.

    Query (..., Sq, D) with up to two leading dimensions; a causal mask is aligned to the top left. Rows that see nothing give 0, as in torch. Inputs whose
    last dimension is not contiguous are copied.

    Raises:
        NotImplementedError: for dropout_p > 0, and for value widths other than the query's.
        ValueError: for attn_mask together with is_causal, and unequal heads without enable_gqa.
    """
    if attn_mask is None and not dropout_p and query.dim() == 4 and (enable_gqa or query.shape[1] == key.shape[1]):
        out = _shortcut(query, key, value, "top_left" if is_causal else None, scale)
        if out is not None:
            return out
    if dropout_p:
        raise NotImplementedError(
            f"dropout_p is {dropout_p}; attention dropout is not implemented: pass 0.0 (in eval mode, or set the model's attention dropout to 0)"
        )
    if attn_mask is not None and is_causal:
        raise ValueError(
            "attn_mask and is_causal were both given; put the causal pattern into attn_mask, or use vlmkernels.attention(mask=..., causal=...)"
        )
    rank = query.dim()
    if not 2 <= rank <= 4:
        raise ValueError(f"query has shape {checks.shape_text(query)}; it must have 2 to 4 dimensions, (..., Sq, D)")
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dim() != rank:
            raise ValueError(
                f"{name} has shape {checks.shape_text(tensor)}; it must have the {rank} dimensions of query"
            )
    if value.shape[-1] != query.shape[-1]:
        raise NotImplementedError(
            f"value has width {value.shape[-1]} and query {query.shape[-1]}; different widths are not implemented: pad value with zeros"
        )
    for _ in range(4 - rank):
        query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(
            f"query has {query.shape[1]} heads and key {key.shape[1]}; pass enable_gqa=True for grouped heads"
        )
    query, key, value = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (query, key, value))
    if attn_mask is not None:
        while attn_mask.dim() < 4:
            attn_mask = attn_mask.unsqueeze(0)
    out = _dense(
        query, key, value, attn_mask, None, None, None, None, "top_left" if is_causal else None, None, scale, None, False
    )  # fmt: skip
    for _ in range(4 - rank):
        out = out.squeeze(0)
    return out


def _shortcut(query: Tensor, key: Tensor, value: Tensor, causal: Causal | None, scale: float | None) -> Tensor | None:
    """The plain call on plain tensors without gradient, for little more than the price of the output: the binding itself checks shapes and strides.

    None if anything about the call is special or wrong; the full path then does it or says what is wrong.
    """
    if (
        not undisturbed()
        or type(query) is not Tensor
        or type(key) is not Tensor
        or type(value) is not Tensor
        or torch._C._is_any_autocast_enabled()
        or not (scale is None or (type(scale) is float and isfinite(scale)))
        or causal not in checks.CAUSAL
        or (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
    ):
        return None
    if query.is_cuda:
        if not backends.kernels_allowed("cuda") or backends.choose("attention", "cuda", query.dtype) != "cuda":
            return None
        execution: tuple[Any, ...] = (*backends.execution("cuda", query), workspace(query))
    elif backends.kernels_allowed("cpu"):
        execution = ("cpu", torch.get_num_threads(), 0, None)
    else:
        return None
    out = torch.empty_like(query)
    try:
        backends.native.attention_forward(  # type: ignore[union-attr]
            query, key, value, out, None, None, None, None, None, None, None,
            checks.CAUSAL[causal], -1, -1, scale, 0.0, 0, *execution,
        )  # fmt: skip
    except (TypeError, ValueError):
        return None
    return out


def _dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    visible: Tensor | None,
    tokens_per_tile: int | None,
    query_padding: Tensor | None,
    key_padding: Tensor | None,
    causal: Causal | None,
    window: Window | None,
    scale: float | None,
    softcap: float | None,
    return_lse: bool,
) -> Any:
    if isinstance(query, Tensor) and (dtype := autocast_dtype(query.device.type)) is not None:
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    checks.check_query_key_value(query, key, value, "(B, H, S, D)")
    options = checks.make_options(query.shape[-1], causal, window, scale, softcap, tokens_per_tile or 0)
    if mask is not None:
        mask = checks.expand_mask(mask, query, key)
    if visible is not None or tokens_per_tile is not None:
        checks.check_visible(visible, tokens_per_tile, query, key)
    if query_padding is not None or key_padding is not None:
        checks.check_padding(query_padding, key_padding, query, key)
    tensors = (query, key, value, mask, visible, query_padding, key_padding)
    if not eager(*tensors):
        out, lse = torch.ops.vlmkernels.attention_forward(*tensors, *options)
    elif needs_grad(query, key, value):
        out, lse = _Attention.apply(*tensors, options)
    else:
        out, lse = _run_forward(*tensors, options, return_lse)
    return (out, lse) if return_lse else out


def _run_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    visible: Tensor | None,
    query_padding: Tensor | None,
    key_padding: Tensor | None,
    options: Options,
    need_lse: bool = True,
) -> tuple[Tensor, Tensor | None]:
    backend = backends.choose("attention", query.device.type, query.dtype)
    if backend == "reference":
        computed, lse = reference.attention(query, key, value, mask, visible, query_padding, key_padding, options)
        return torch.empty_like(query).copy_(computed), lse
    out = torch.empty_like(query)
    query, key, value = aligned(backend, query, key, value)
    row_lse = query.new_empty(query.shape[:-1], dtype=torch.float32) if need_lse else None
    backends.native.attention_forward(  # type: ignore[union-attr]
        query,
        key,
        value,
        out,
        row_lse,
        mask,
        visible,
        query_padding,
        key_padding,
        None,
        None,
        *options,
        *backends.execution(backend, query),
        workspace(query),
    )
    return out, row_lse


def _run_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    mask: Tensor | None,
    visible: Tensor | None,
    query_padding: Tensor | None,
    key_padding: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor]:
    grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    backend = backends.choose("attention", query.device.type, query.dtype)
    if backend == "reference":
        found = reference.attention_backward(
            grad_out, grad_lse, query, key, value, out, lse, mask, visible, query_padding, key_padding, options
        )
        for grad, computed in zip(grads, found, strict=True):
            grad.copy_(computed)
        return grads
    grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
    grad_out, query, key, value, out = aligned(backend, grad_out, query, key, value, out)
    grad_lse = None if grad_lse is None else grad_lse.contiguous()
    lse = lse.contiguous()
    backends.native.attention_backward(  # type: ignore[union-attr]
        grad_out,
        grad_lse,
        query,
        key,
        value,
        out,
        lse,
        *grads,
        mask,
        visible,
        query_padding,
        key_padding,
        None,
        None,
        *options,
        *backends.execution(backend, query),
        workspace(query),
    )
    return grads


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        *tensors, options = args
        out, lse = _run_forward(*tensors, options)  # type: ignore[misc,call-arg]
        query, key, value, *masks = tensors
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, out, lse, *masks)
        ctx.options = options
        return out, lse  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        query, key, value, out, *rest = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        # With create_graph the registered operator runs, whose own backward refuses.
        run = torch.ops.vlmkernels.attention_backward if torch.is_grad_enabled() else _op_backward
        return (*run(grad_out, grad_lse, query, key, value, out, *rest, *ctx.options), *[None] * 5)


# --- torch.ops.vlmkernels.attention_forward and attention_backward ---

_OPTIONS = "int causal, int window_left, int window_right, float scale, float softcap, int tokens_per_tile"
_MASKS = "Tensor? mask, Tensor? visible, Tensor? query_padding, Tensor? key_padding"


def _op_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    visible: Tensor | None,
    query_padding: Tensor | None,
    key_padding: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    given = Options(*options)
    checks.check_query_key_value(query, key, value, "(B, H, S, D)")
    if mask is not None:
        mask = checks.expand_mask(mask, query, key)
    checks.check_visible(visible, None if visible is None else given.tokens_per_tile, query, key)
    checks.check_padding(query_padding, key_padding, query, key)
    return _run_forward(query, key, value, mask, visible, query_padding, key_padding, given)  # type: ignore[return-value]


def _op_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _run_backward(*args[:11], Options(*args[11:]))  # type: ignore[call-arg]


def _fake_forward(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=_lse_dtype(query))


def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _lse_dtype(query: Tensor) -> torch.dtype:
    return torch.promote_types(query.dtype, torch.float32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *masks = inputs[:7]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, *output, *masks)
    ctx.options = inputs[7:]


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    query, key, value, out, *rest = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grads = torch.ops.vlmkernels.attention_backward(grad_out, grad_lse, query, key, value, out, *rest, *ctx.options)
    return (*grads, *[None] * 10)


def _fold(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Moves a vmapped dimension in front of the batch and merges the two; a tensor without it is repeated."""
    if tensor is None:
        return None
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.reshape(-1, *tensor.shape[2:])


def _fold_all(info: Any, in_dims: tuple[int | None, ...], args: tuple[Any, ...], tensors: int) -> list[Tensor | None]:
    folded = [_fold(arg, dim, info.batch_size) for arg, dim in zip(args[:tensors], in_dims[:tensors], strict=True)]
    return [t.contiguous() if t is not None and t.dtype != torch.bool and t.stride(-1) != 1 else t for t in folded]


def _vmap_forward(
    info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    out, lse = torch.ops.vlmkernels.attention_forward(*_fold_all(info, in_dims, args, 7), *args[7:])
    return (out.unflatten(0, (info.batch_size, -1)), lse.unflatten(0, (info.batch_size, -1))), (0, 0)


def _vmap_backward(
    info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
    grads = torch.ops.vlmkernels.attention_backward(*_fold_all(info, in_dims, args, 11), *args[11:])
    return tuple(grad.unflatten(0, (info.batch_size, -1)) for grad in grads), (0, 0, 0)


def _cast(dtype: torch.dtype, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Any, ...]:
    return query.to(dtype), key.to(dtype), value.to(dtype), *rest


define(
    "attention_forward",
    f"(Tensor query, Tensor key, Tensor value, {_MASKS}, {_OPTIONS}) -> (Tensor, Tensor)",
    _op_forward,
    _fake_forward,
    setup_context=_setup_context,
    backward=_backward,
    vmap=_vmap_forward,
    autocast=_cast,
)
define(
    "attention_backward",
    f"(Tensor grad_out, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse, {_MASKS}, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    _op_backward,
    _fake_backward,
    backward=refuse_double_backward("attention"),
    vmap=_vmap_backward,
)
