"""Attention of packed sequences of different length, one after another in (T, H, D), as vision towers with native resolution and window attention use it."""

from __future__ import annotations

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
    workspace,
)
from vlmkernels.reference import attention as reference
from vlmkernels.reference.attention import Options

__all__ = ["attention_varlen"]


def attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    *,
    causal: Causal | None = None,
    window: Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    return_lse: bool = False,
) -> Any:
    """:func:`vlmkernels.attention` of N packed sequences: rows of sequence n attend to the keys of sequence n.

    Args:
        query: (Tq, Hq, D); key, value: (Tk, Hk, D); dtypes, heads and head_dim as in :func:`vlmkernels.attention`.
        cu_seqlens_q, cu_seqlens_k: int32 (N + 1,), sequence n is rows cu_seqlens[n] to cu_seqlens[n + 1]; they start at 0 and do not decrease. Sequences may be empty;
            rows past the last boundary give 0.
        causal, window, scale, softcap: as in :func:`vlmkernels.attention`, within each sequence.

    Returns:
        out (Tq, Hq, D) with the strides of the query; with `return_lse` a pair (out, lse), lse (Hq, Tq) float32.
    """
    if isinstance(query, Tensor) and (dtype := autocast_dtype(query.device.type)) is not None:
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    checks.check_query_key_value(query, key, value, "(T, H, D)")
    checks.check_cu_seqlens(cu_seqlens_q, cu_seqlens_k, query, key)
    options = checks.make_options(query.shape[-1], causal, window, scale, softcap)
    tensors = (query, key, value, cu_seqlens_q, cu_seqlens_k)
    if not eager(*tensors):
        out, lse = torch.ops.vlmkernels.attention_varlen_forward(*tensors, *options)
    elif needs_grad(query, key, value):
        out, lse = _AttentionVarlen.apply(*tensors, options)
    else:
        out, lse = _run_forward(*tensors, options, return_lse)
    return (out, lse) if return_lse else out


def _run_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    options: Options,
    need_lse: bool = True,
) -> tuple[Tensor, Tensor | None]:
    checks.check_cu_seqlens_values(cu_seqlens_q, cu_seqlens_k, query, key)
    backend = backends.choose("attention", query.device.type, query.dtype)
    if backend == "reference":
        computed, lse = reference.attention_varlen(query, key, value, cu_seqlens_q, cu_seqlens_k, options)
        return torch.empty_like(query).copy_(computed), lse
    out = torch.empty_like(query)
    query, key, value = aligned(backend, query, key, value)
    row_lse = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32) if need_lse else None
    backends.native.attention_forward(  # type: ignore[union-attr]
        query,
        key,
        value,
        out,
        row_lse,
        None,
        None,
        None,
        None,
        cu_seqlens_q.contiguous(),
        cu_seqlens_k.contiguous(),
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
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor]:
    checks.check_cu_seqlens_values(cu_seqlens_q, cu_seqlens_k, query, key)
    grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    backend = backends.choose("attention", query.device.type, query.dtype)
    if backend == "reference":
        found = reference.attention_varlen_backward(
            grad_out, grad_lse, query, key, value, out, lse, cu_seqlens_q, cu_seqlens_k, options
        )
        for grad, computed in zip(grads, found, strict=True):
            grad.copy_(computed)
        return grads
    grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
    grad_out, query, key, value, out = aligned(backend, grad_out, query, key, value, out)
    grad_lse = None if grad_lse is None else grad_lse.contiguous()
    lse = lse.contiguous()
    backends.native.attention_backward(  # type: ignore[union-attr]
        grad_out, grad_lse, query, key, value, out, lse, *grads, None, None, None, None, cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous(),
        *options, *backends.execution(backend, query), workspace(query),
    )  # fmt: skip
    return grads


class _AttentionVarlen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        query, key, value, cu_seqlens_q, cu_seqlens_k, options = args
        out, lse = _run_forward(*args)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, out, lse, cu_seqlens_q, cu_seqlens_k)
        ctx.options = options
        return out, lse  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        query, key, value, out, *rest = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        # With create_graph the registered operator runs, whose own backward refuses.
        run = torch.ops.vlmkernels.attention_varlen_backward if torch.is_grad_enabled() else _op_backward
        return (*run(grad_out, grad_lse, query, key, value, out, *rest, *ctx.options), *[None] * 3)


# --- torch.ops.vlmkernels.attention_varlen_forward and attention_varlen_backward ---

_OPTIONS = "int causal, int window_left, int window_right, float scale, float softcap, int tokens_per_tile"
_TENSORS = "Tensor query, Tensor key, Tensor value"


def _op_forward(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, *options: Any
) -> tuple[Tensor, Tensor]:
    checks.check_query_key_value(query, key, value, "(T, H, D)")
    checks.check_cu_seqlens(cu_seqlens_q, cu_seqlens_k, query, key)
    return _run_forward(query, key, value, cu_seqlens_q, cu_seqlens_k, Options(*options))  # type: ignore[return-value]


def _op_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _run_backward(*args[:9], Options(*args[9:]))  # type: ignore[call-arg]


def _fake_forward(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    lse_dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.empty_like(query), query.new_empty((query.shape[1], query.shape[0]), dtype=lse_dtype)


def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, cu_seqlens_q, cu_seqlens_k, *options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, *output, cu_seqlens_q, cu_seqlens_k)
    ctx.options = options


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    query, key, value, out, *rest = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grads = torch.ops.vlmkernels.attention_varlen_backward(
        grad_out, grad_lse, query, key, value, out, *rest, *ctx.options
    )
    return (*grads, *[None] * 8)


def _fold_heads(tensor: Tensor | None, dim: int | None, size: int, head_axis: int) -> Tensor | None:
    """Moves a vmapped dimension in front of the heads and merges the two: heads are independent, and groups stay together."""
    if tensor is None:
        return None
    if dim is None:
        tensor = tensor.unsqueeze(head_axis).expand(*tensor.shape[:head_axis], size, *tensor.shape[head_axis:])
    else:
        tensor = tensor.movedim(dim, head_axis)
    tensor = tensor.flatten(head_axis, head_axis + 1)
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _fold_all(
    info: Any, in_dims: tuple[int | None, ...], args: tuple[Any, ...], head_axes: tuple[int, ...]
) -> list[Tensor | None]:
    if any(dim is not None for dim in in_dims[len(head_axes) : len(head_axes) + 2]):
        raise NotImplementedError(
            "vmap over cu_seqlens is not possible: sequence boundaries must be the same for the whole vmapped batch"
        )
    return [
        _fold_heads(arg, dim, info.batch_size, axis) for arg, dim, axis in zip(args, in_dims, head_axes, strict=False)
    ]


def _vmap_forward(
    info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    out, lse = torch.ops.vlmkernels.attention_varlen_forward(*_fold_all(info, in_dims, args, (1, 1, 1)), *args[3:])
    return (out.unflatten(1, (info.batch_size, -1)), lse.unflatten(0, (info.batch_size, -1))), (1, 0)


def _vmap_backward(
    info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
    grads = torch.ops.vlmkernels.attention_varlen_backward(
        *_fold_all(info, in_dims, args, (1, 0, 1, 1, 1, 1, 0)), *args[7:]
    )
    return tuple(grad.unflatten(1, (info.batch_size, -1)) for grad in grads), (1, 1, 1)


def _cast(dtype: torch.dtype, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Any, ...]:
    return query.to(dtype), key.to(dtype), value.to(dtype), *rest


define(
    "attention_varlen_forward",
    f"({_TENSORS}, Tensor cu_seqlens_q, Tensor cu_seqlens_k, {_OPTIONS}) -> (Tensor, Tensor)",
    _op_forward,
    _fake_forward,
    setup_context=_setup_context,
    backward=_backward,
    vmap=_vmap_forward,
    autocast=_cast,
)
define(
    "attention_varlen_backward",
    f"(Tensor grad_out, Tensor? grad_lse, {_TENSORS}, Tensor out, Tensor lse, Tensor cu_seqlens_q, Tensor cu_seqlens_k, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    _op_backward,
    _fake_backward,
    backward=refuse_double_backward("attention_varlen"),
    vmap=_vmap_backward,
)
