"""InfoNCE, the contrastive loss of CLIP, without the matrix of logits.

Radford et al., "Learning transferable visual models from natural language supervision" (2021). The same mathematics in plain PyTorch:
:mod:`vlmkernels.reference.contrastive`.

The operator does not return the loss but the statistics it is made of, four numbers a row and a column: logsumexp, mean of the logits over the positives, mean over
all, number of positives. Smoothing, reductions, one direction or two are then O(M + N) of plain torch that autograd differentiates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.ops import _contrastive_checks as checks
from vlmkernels.ops._contrastive_checks import LABEL_NAMES, Labels
from vlmkernels.ops._framework import define, eager, loop_over_batch, needs_grad, refuse_double_backward, workspace
from vlmkernels.reference import contrastive as reference

__all__ = ["ContrastiveGrads", "contrastive_logsumexp", "contrastive_loss", "contrastive_loss_and_grads"]


#: Rows and columns of the part of z that CUDA kernels have gradients of at a time; 0: as many as csrc/contrastive/gpu_tiles.h says.
CHUNK_SIDE = 0


class ContrastiveGrads(NamedTuple):
    """Gradients of a contrastive loss."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor


def contrastive_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    labels: Labels = "diagonal",
    label_offset: int = 0,
    label_smoothing: float = 0.0,
    symmetric: bool = True,
    reduction: str = "mean",
    normalize: bool = False,
    return_lse: bool = False,
) -> Any:
    """Symmetric InfoNCE.

    z_ij = logit_scale <image_i, text_j>,  row_i = logsumexp_j z_ij - sum_j T_ij z_ij,  column_j the same over i,
    loss = (mean_i row_i + mean_j column_j) / 2;  T_ij spreads row i evenly over its positives, (1 - e) T_ij + e / N with label smoothing e.

    Args:
        image, text: (M, D) and (N, D) features; float32, bfloat16 or float16, one dtype; any D >= 1.
        logit_scale: the linear multiplier (not its logarithm), a number or a tensor of one element.
        labels: "diagonal": row i's positive is column i + label_offset. Integer group ids, (M,) where M = N or a pair ((M,), (N,)): all pairs of equal id.
        label_smoothing: e above.
        symmetric: False drops the column direction.
        reduction: "mean": rows and columns without a positive do not count. "sum": (sum_i row_i + sum_j column_j) / 2. "none": per row (M,), (row_i + column_i) / 2
            where symmetric (M = N).
        normalize: divide rows by their L2 norm inside; a row of zeros stays one.
        return_lse: also return the logsumexp of rows (M,) and columns (N,), which get gradients as well.

    Returns:
        The loss in float32, or (loss, row_lse, column_lse). Gradients: image, text, logit_scale. Memory O((M + N) D): the matrix z exists only in tiles.

    Raises:
        ValueError, TypeError: naming the argument and the remedy.
    """
    image, text = checks.features(image, text)
    scale = checks.number("logit_scale", logit_scale, image)
    if labels is None:
        raise ValueError(
            'labels is None, and InfoNCE needs positives: use "diagonal" or group ids, or contrastive_logsumexp for the logsumexp alone'
        )
    kind, image_group, text_group, offset = checks.labels(labels, label_offset, image, text)
    smoothing = checks.check_smoothing(label_smoothing)
    checks.check_reduction(reduction, symmetric, image, text)
    rows, columns = _statistics(image, text, scale, image_group, text_group, kind, offset, normalize)
    loss = _reduce(rows, columns, smoothing, symmetric, reduction)
    return (loss, rows[0], columns[0]) if return_lse else loss


def contrastive_logsumexp(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, *, normalize: bool = False
) -> tuple[Tensor, Tensor]:
    """logsumexp of every row and every column of z, (M,) and (N,) float32, differentiable; what a loss over several shards is merged from."""
    image, text = checks.features(image, text)
    scale = checks.number("logit_scale", logit_scale, image)
    rows, columns = _statistics(image, text, scale, None, None, checks.NONE, 0, normalize)
    return rows[0], columns[0]


def contrastive_loss_and_grads(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    labels: Labels = "diagonal",
    label_offset: int = 0,
    label_smoothing: float = 0.0,
    symmetric: bool = True,
    reduction: str = "mean",
    normalize: bool = False,
) -> tuple[Tensor, ContrastiveGrads]:
    """The loss of :func:`contrastive_loss` ("mean" or "sum") and its gradients in one call, outside autograd: what gradient caching wants."""
    if reduction == "none":
        raise ValueError('reduction is "none"; gradients are of one number: use "mean" or "sum"')
    shape = logit_scale.shape if isinstance(logit_scale, Tensor) else ()
    leaves = [image.detach().requires_grad_(), text.detach().requires_grad_()]
    with torch.enable_grad():
        scale = checks.number("logit_scale", logit_scale, image).detach().requires_grad_()
        loss = contrastive_loss(
            leaves[0],
            leaves[1],
            scale,
            labels=labels,
            label_offset=label_offset,
            label_smoothing=label_smoothing,
            symmetric=symmetric,
            reduction=reduction,
            normalize=normalize,
        )
        grads = torch.autograd.grad(loss, [*leaves, scale])
    return loss.detach(), ContrastiveGrads(grads[0], grads[1], grads[2].reshape(shape))


def _reduce(rows: Tensor, columns: Tensor, smoothing: float, symmetric: bool, reduction: str) -> Tensor:
    row_losses, row_counts = _losses(rows, smoothing)
    if reduction == "none":
        return (row_losses + _losses(columns, smoothing)[0]) / 2 if symmetric else row_losses
    total = _total(row_losses, row_counts, reduction)
    if not symmetric:
        return total
    return (total + _total(*_losses(columns, smoothing), reduction)) / 2


def _losses(statistics: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """logsumexp - (1 - e) target - e mean where there is a positive, 0 elsewhere; and where there is one."""
    lse, target, mean, positives = statistics.unbind(0)
    counts = positives > 0
    expected = target if smoothing == 0.0 else (1.0 - smoothing) * target + smoothing * mean
    return torch.where(counts, lse - expected, 0.0), counts


def _total(losses: Tensor, counts: Tensor, reduction: str) -> Tensor:
    total = losses.sum(dtype=torch.float64).to(losses.dtype)
    return total / counts.sum().clamp_min(1) if reduction == "mean" else total


def _statistics(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    image_group: Tensor | None,
    text_group: Tensor | None,
    kind: int,
    offset: int,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    args = (image, text, scale, image_group, text_group, kind, offset, normalize)
    if not eager(*args[:5]):
        return torch.ops.vlmkernels.contrastive_forward(*args)  # type: ignore[no-any-return]
    if needs_grad(image, text, scale):
        return _Contrastive.apply(*args)  # type: ignore[no-any-return]
    return _run_forward(*args)


def inner_contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.shape[1] <= 1 or tensor.stride(1) == 1 else tensor.contiguous()


def factors(image: Tensor, text: Tensor, normalize: bool) -> tuple[Tensor | None, Tensor | None]:
    """Inverse norms of the rows, 0 for a row of zeros."""

    def of(rows: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        return torch.where(norm > 0, 1.0 / norm, 0.0).float()

    return (of(image), of(text)) if normalize else (None, None)


def _run_forward(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    image_group: Tensor | None,
    text_group: Tensor | None,
    kind: int,
    offset: int,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    backend = backends.choose("contrastive", image.device.type, image.dtype)
    if backend == "reference":
        z = reference.logits(image, text, scale, normalize=normalize)
        return reference.contrastive_statistics(z, positive_like(image, text, image_group, text_group, kind, offset))
    rows, columns = _fake_forward(image, text)
    image, text = inner_contiguous(image), inner_contiguous(text)
    backends.native.contrastive_forward(  # type: ignore[union-attr]
        image, text, *factors(image, text, normalize), image_group, text_group, scale, kind, offset, rows, columns,
        *backends.execution(backend, image), CHUNK_SIDE, workspace(image),
    )  # fmt: skip
    return rows, columns


def _run_backward(
    grad_rows: Tensor,
    grad_columns: Tensor,
    rows: Tensor,
    columns: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    image_group: Tensor | None,
    text_group: Tensor | None,
    kind: int,
    offset: int,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    backend = backends.choose("contrastive", image.device.type, image.dtype)
    if backend == "reference":
        positive = positive_like(image, text, image_group, text_group, kind, offset)
        grads = reference.contrastive_backward(
            grad_rows, grad_columns, rows, columns, image, text, scale, positive, normalize
        )
        return grads[0].to(image.dtype), grads[1].to(image.dtype), grads[2]
    grad_image, grad_text, grad_scale = _fake_backward(grad_rows, grad_columns, rows, columns, image, text, scale)
    scale_dot = image.new_empty(image.shape[0], dtype=torch.float32)
    image, text = inner_contiguous(image), inner_contiguous(text)
    backends.native.contrastive_backward(  # type: ignore[union-attr]
        image, text, *factors(image, text, normalize), image_group, text_group, scale, kind, offset,
        rows.contiguous(), columns.contiguous(), grad_rows[:3].contiguous(), grad_columns[:3].contiguous(), grad_image, grad_text, scale_dot,
        *backends.execution(backend, image), CHUNK_SIDE, workspace(image),
    )  # fmt: skip
    return grad_image, grad_text, grad_scale.copy_(scale_dot.sum(dtype=torch.float64))


def positive_like(
    image: Tensor, text: Tensor, image_group: Tensor | None, text_group: Tensor | None, kind: int, offset: int
) -> Tensor:
    return reference.positive_pairs(
        image.shape[0], text.shape[0], image_group, text_group, LABEL_NAMES[kind], offset, image.device
    )


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        output = _run_forward(*args)
        _setup_context(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        run = torch.ops.vlmkernels.contrastive_backward if torch.is_grad_enabled() else _run_backward
        return _apply_backward(ctx, grads, run)


def _apply_backward(ctx: Any, grads: Sequence[Tensor], run: Any) -> tuple[Any, ...]:
    rows, columns, *inputs = ctx.saved_tensors
    found = run(*grads, rows, columns, *inputs, *ctx.options)
    return (*(g if need else None for g, need in zip(found, ctx.needs_input_grad[:3], strict=True)), *[None] * 5)


# --- torch.ops.vlmkernels.contrastive_forward and contrastive_backward ---

_TENSORS = "Tensor image, Tensor text, Tensor logit_scale, Tensor? image_group, Tensor? text_group, int labels, int label_offset, bool normalize"


def _op_forward(image: Tensor, text: Tensor, scale: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    image, text = checks.features(image, text)
    scale = checks.number("logit_scale", scale, image)
    image_group, text_group, kind, offset, normalize = rest
    checks.operator_labels(kind, image_group, text_group, offset, image, text)
    return _run_forward(image, text, scale, image_group, text_group, kind, offset, normalize)


def _fake_forward(image: Tensor, text: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(image.dtype, torch.float32)
    return image.new_empty((4, image.shape[0]), dtype=dtype), image.new_empty((4, text.shape[0]), dtype=dtype)


def _fake_backward(
    grad_rows: Tensor,
    grad_columns: Tensor,
    rows: Tensor,
    columns: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return image.new_empty(image.shape), text.new_empty(text.shape), torch.empty_like(scale)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:5])
    ctx.options = inputs[5:]


def _backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    return _apply_backward(ctx, grads, torch.ops.vlmkernels.contrastive_backward)


def _autocast(dtype: torch.dtype, image: Tensor, text: Tensor, *rest: Any) -> tuple[Any, ...]:
    return *checks.promoted(image, text), *rest


define(
    "contrastive_forward",
    f"({_TENSORS}) -> (Tensor, Tensor)",
    _op_forward,
    _fake_forward,
    setup_context=_setup_context,
    backward=_backward,
    vmap=loop_over_batch("contrastive_forward"),
    autocast=_autocast,
)
define(
    "contrastive_backward",
    f"(Tensor grad_rows, Tensor grad_columns, Tensor rows, Tensor columns, {_TENSORS}) -> (Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
    backward=refuse_double_backward("contrastive_loss"),
    vmap=loop_over_batch("contrastive_backward"),
)
