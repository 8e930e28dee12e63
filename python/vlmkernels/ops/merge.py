"""Merging attention over parts of the keys: from outputs and logsumexps of the parts to those of the whole, forward and backward.

Dao et al., "FlashAttention" (2022), section 3.1. The same mathematics in plain PyTorch: :mod:`vlmkernels.reference.merge`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.ops._framework import define, eager, needs_grad, refuse_double_backward
from vlmkernels.reference import merge as reference

__all__ = ["merge_attention"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Row dimensions the kernels index; more are merged, which copies only where strides do not allow it.
_MAX_ROW_DIMS = 4


def merge_attention(outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over all keys from N attentions over disjoint parts of them.

    lse = log sum_i exp(lse_i),  w_i = exp(lse_i - lse),  out = sum_i w_i out_i.

    Args:
        outputs: (N, ..., D), what :func:`vlmkernels.attention` returned for each part; float32, bfloat16 or float16; any strides with a contiguous last dimension.
        logsumexps: (N, ...), float32, natural logarithm, any strides; -inf where a part saw nothing.

    Returns:
        out (..., D) in the dtype and layout of ``outputs[0]`` and lse (...) float32. Rows that no part saw have out 0 and lse -inf. A part of weight 0 contributes
        nothing, whatever it holds. Both results are differentiable, with respect to both arguments.

    Raises:
        ValueError, TypeError, NotImplementedError: naming the argument and the remedy.
    """
    _check(outputs, logsumexps)
    if not eager(outputs, logsumexps):
        return torch.ops.vlmkernels.merge_attention_forward(outputs, logsumexps)  # type: ignore[no-any-return]
    if needs_grad(outputs, logsumexps):
        return _MergeAttention.apply(outputs, logsumexps)  # type: ignore[no-any-return]
    return _run_forward(outputs, logsumexps)


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join(str(size) for size in tensor.shape) + ")"


def _check(outputs: Tensor, logsumexps: Tensor) -> None:
    for name, tensor in (("outputs", outputs), ("logsumexps", logsumexps)):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name} must be a torch.Tensor, got {type(tensor).__name__}; torch.stack a list of tensors"
            )
    if outputs.dtype not in _DTYPES:
        raise TypeError(
            f"outputs is {outputs.dtype}; merge_attention takes float32, bfloat16 or float16: convert with .to(...)"
        )
    if outputs.dim() < 2:
        raise ValueError(f"outputs must be (N, ..., D), got shape {_shape(outputs)}; add the dimension of the parts")
    if logsumexps.shape != outputs.shape[:-1]:
        raise ValueError(
            f"logsumexps must have the shape of outputs without its last dimension, {tuple(outputs.shape[:-1])}, got {_shape(logsumexps)}"
        )
    expected = torch.promote_types(outputs.dtype, torch.float32)
    if logsumexps.dtype != expected:
        raise TypeError(
            f"logsumexps is {logsumexps.dtype} with outputs in {outputs.dtype}; it must be {expected}: convert with .to({expected})"
        )
    if logsumexps.device != outputs.device:
        raise ValueError(
            f"outputs is on {outputs.device} and logsumexps on {logsumexps.device}; move them to one device"
        )
    if outputs.shape[-1] == 0:
        raise ValueError(f"outputs has shape {_shape(outputs)}; the last dimension must not be empty")
    if outputs.shape[-1] > 1 and outputs.stride(-1) != 1:
        raise ValueError("outputs must be contiguous in its last dimension; call .contiguous()")


def _row_dims(tensor: Tensor, first: int, last: int) -> Tensor:
    """`tensor` with at most _MAX_ROW_DIMS dimensions between index `first` and the last `last` ones."""
    extra = tensor.dim() - first - last - _MAX_ROW_DIMS
    return tensor if extra <= 0 else tensor.flatten(first, first + extra)


def _empty_outputs(outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
    one = outputs[0] if outputs.shape[0] else outputs.new_empty(outputs.shape[1:])
    return torch.empty_like(one), logsumexps.new_empty(logsumexps.shape[1:])


def _run_forward(outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
    backend = backends.choose("merge_attention", outputs.device.type, outputs.dtype)
    out, lse = _empty_outputs(outputs, logsumexps)
    if backend == "reference":
        merged, merged_lse = reference.merge_attention(outputs, logsumexps)
        return out.copy_(merged), merged_lse
    # Merging dimensions of a result must not copy; its last resort is a contiguous buffer.
    merged = out if out.dim() <= _MAX_ROW_DIMS + 1 else out.new_empty(out.shape)
    backends.native.merge_attention_forward(  # type: ignore[union-attr]
        _row_dims(outputs, 1, 1),
        _row_dims(logsumexps, 1, 0),
        _row_dims(merged, 0, 1),
        _row_dims(lse, 0, 0),
        *backends.execution(backend, outputs),
    )
    return (out if merged is out else out.copy_(merged)), lse


def _run_backward(
    grad_out: Tensor, grad_lse: Tensor | None, outputs: Tensor, logsumexps: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    backend = backends.choose("merge_attention", outputs.device.type, outputs.dtype)
    grads = torch.empty_like(outputs), torch.empty_like(logsumexps)
    if backend == "reference":
        found = reference.merge_attention_backward(grad_out, grad_lse, outputs, logsumexps, lse)
        for grad, computed in zip(grads, found, strict=True):
            grad.copy_(computed)
        return grads
    grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
    small = outputs.dim() <= _MAX_ROW_DIMS + 2
    written = grads if small else (outputs.new_empty(outputs.shape), logsumexps.new_empty(logsumexps.shape))
    backends.native.merge_attention_backward(  # type: ignore[union-attr]
        _row_dims(grad_out, 0, 1),
        None if grad_lse is None else _row_dims(grad_lse, 0, 0),
        _row_dims(outputs, 1, 1),
        _row_dims(logsumexps, 1, 0),
        _row_dims(lse, 0, 0),
        _row_dims(written[0], 1, 1),
        _row_dims(written[1], 1, 0),
        *backends.execution(backend, outputs),
    )
    if not small:
        for grad, computed in zip(grads, written, strict=True):
            grad.copy_(computed)
    return grads


class _MergeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = _run_forward(outputs, logsumexps)
        _setup_context(ctx, (outputs, logsumexps), (out, lse))
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor, Tensor]:
        # With create_graph the registered operator runs, whose own backward refuses.
        run = torch.ops.vlmkernels.merge_attention_backward if torch.is_grad_enabled() else _run_backward
        return run(*_gradients(ctx, grad_out, grad_lse), *ctx.saved_tensors)  # type: ignore[no-any-return]


def _gradients(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if grad_out is None:
        outputs = ctx.saved_tensors[0]
        grad_out = outputs.new_zeros(outputs.shape[1:])
    return grad_out, grad_lse


# --- torch.ops.vlmkernels.merge_attention_forward and merge_attention_backward ---


def _op_forward(outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
    _check(outputs, logsumexps)
    return _run_forward(outputs, logsumexps)


def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, outputs: Tensor, logsumexps: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(outputs), torch.empty_like(logsumexps)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.ops.vlmkernels.merge_attention_backward(*_gradients(ctx, grad_out, grad_lse), *ctx.saved_tensors)  # type: ignore[no-any-return]


def _as_rows(tensor: Tensor, dim: int | None, size: int, position: int) -> Tensor:
    """A vmapped dimension becomes a row dimension at `position`; a tensor without it is repeated."""
    if dim is not None:
        return tensor.movedim(dim, position)
    return tensor.unsqueeze(position).expand(*tensor.shape[:position], size, *tensor.shape[position:])


def _contiguous_last(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _vmap_forward(
    info: Any, in_dims: tuple[int | None, ...], outputs: Tensor, logsumexps: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    outputs = _contiguous_last(_as_rows(outputs, in_dims[0], info.batch_size, 1))
    logsumexps = _as_rows(logsumexps, in_dims[1], info.batch_size, 1)
    return torch.ops.vlmkernels.merge_attention_forward(outputs, logsumexps), (0, 0)


def _vmap_backward(
    info: Any, in_dims: tuple[int | None, ...], *args: Tensor | None
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    grad_out, grad_lse, outputs, logsumexps, lse = (
        None if tensor is None else _as_rows(tensor, dim, info.batch_size, position)
        for tensor, dim, position in zip(args, in_dims, (0, 0, 1, 1, 0), strict=True)
    )
    assert outputs is not None
    outputs = _contiguous_last(outputs)
    return torch.ops.vlmkernels.merge_attention_backward(grad_out, grad_lse, outputs, logsumexps, lse), (1, 1)


define(
    "merge_attention_forward",
    "(Tensor outputs, Tensor logsumexps) -> (Tensor, Tensor)",
    _op_forward,
    _empty_outputs,
    setup_context=_setup_context,
    backward=_backward,
    vmap=_vmap_forward,
)
define(
    "merge_attention_backward",
    "(Tensor grad_out, Tensor? grad_lse, Tensor outputs, Tensor logsumexps, Tensor lse) -> (Tensor, Tensor)",
    _run_backward,
    _fake_backward,
    backward=refuse_double_backward("merge_attention"),
    vmap=_vmap_backward,
)
