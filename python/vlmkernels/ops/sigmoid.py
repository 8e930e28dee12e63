"""The sigmoid loss of SigLIP without the matrix of logits.

Zhai et al., "Sigmoid loss for language image pre-training" (2023). The same mathematics in plain PyTorch: :mod:`vlmkernels.reference.contrastive`.

Rows do not depend on each other, so loss and gradients come from one walk over the logits: eager training in fp32 and bf16 takes the gradients along in the forward
pass. fp16 recomputes in the backward pass instead, where the loss scale is known: a gradient rounded to fp16 before it is scaled would vanish.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.ops import _contrastive_checks as checks
from vlmkernels.ops import contrastive
from vlmkernels.ops._contrastive_checks import Labels
from vlmkernels.ops._framework import define, eager, loop_over_batch, needs_grad, refuse_double_backward, workspace
from vlmkernels.ops.contrastive import factors, inner_contiguous, positive_like
from vlmkernels.reference import contrastive as reference

__all__ = ["SigmoidGrads", "sigmoid_loss", "sigmoid_loss_and_grads"]


class SigmoidGrads(NamedTuple):
    """Gradients of the sigmoid loss."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor


def sigmoid_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    labels: Labels = "diagonal",
    label_offset: int = 0,
    reduction: str = "mean",
    normalize: bool = False,
) -> Tensor:
    """The pairwise sigmoid loss.

    z_ij = logit_scale <image_i, text_j> + logit_bias,  loss = 1/M sum_ij [softplus(z_ij) - (z_ij where i, j is a positive pair)].

    Args:
        image, text: (M, D) and (N, D) features; float32, bfloat16 or float16, one dtype; any D >= 1.
        logit_scale, logit_bias: the linear multiplier and the bias, numbers or tensors of one element.
        labels: "diagonal": row i's positive is column i + label_offset. Integer group ids, (M,) where M = N or a pair ((M,), (N,)): all pairs of equal id. None: no
            positives (a block of negatives only).
        reduction: "mean" divides by M, "sum" does not, "none" gives the sums of the rows (M,).
        normalize: divide rows by their L2 norm inside; a row of zeros stays one.

    Returns:
        The loss in float32. Gradients: image, text, logit_scale, logit_bias. Memory O((M + N) D): the matrix z exists only in tiles.

    Raises:
        ValueError, TypeError: naming the argument and the remedy.
    """
    args = _arguments(image, text, logit_scale, logit_bias, labels, label_offset, normalize)
    checks.check_reduction(reduction, False, image, text)
    image = args[0]
    if reduction != "none" and image.dtype != torch.float16 and eager(*args[:6]) and needs_grad(*args[:4]):
        return _SigmoidTotal.apply(_factor(image, reduction), *args)  # type: ignore[no-any-return]
    losses = _row_losses(*args)
    if reduction == "none":
        return losses
    return _total(losses) * _factor(image, reduction)


def sigmoid_loss_and_grads(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    labels: Labels = "diagonal",
    label_offset: int = 0,
    reduction: str = "mean",
    normalize: bool = False,
) -> tuple[Tensor, SigmoidGrads]:
    """The loss of :func:`sigmoid_loss` ("mean" or "sum") and its gradients in one walk, outside autograd: what gradient caching wants."""
    if reduction == "none":
        raise ValueError('reduction is "none"; gradients are of one number: use "mean" or "sum"')
    args = _arguments(image, text, logit_scale, logit_bias, labels, label_offset, normalize)
    checks.check_reduction(reduction, False, image, text)
    shapes = [v.shape if isinstance(v, Tensor) else () for v in (logit_scale, logit_bias)]
    with torch.no_grad():
        loss, grads = _loss_and_grads(_factor(args[0], reduction), *args)
    return loss, SigmoidGrads(grads[0], grads[1], grads[2].reshape(shapes[0]), grads[3].reshape(shapes[1]))


def _arguments(
    image: Any, text: Any, scale: Any, bias: Any, labels: Any, label_offset: Any, normalize: bool
) -> tuple[Any, ...]:
    image, text = checks.features(image, text)
    numbers = checks.number("logit_scale", scale, image), checks.number("logit_bias", bias, image)
    kind, image_group, text_group, offset = checks.labels(labels, label_offset, image, text)
    return image, text, *numbers, image_group, text_group, kind, offset, normalize


def _factor(image: Tensor, reduction: str) -> float:
    return 1.0 / max(image.shape[0], 1) if reduction == "mean" else 1.0


def _total(losses: Tensor) -> Tensor:
    return losses.sum(dtype=torch.float64).to(losses.dtype)


def _row_losses(*args: Any) -> Tensor:
    if not eager(*args[:6]):
        return torch.ops.vlmkernels.sigmoid_forward(*args)  # type: ignore[no-any-return]
    if needs_grad(*args[:4]):
        return _SigmoidRows.apply(*args)  # type: ignore[no-any-return]
    return _run_forward(*args)


def _run_forward(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    image_group: Tensor | None,
    text_group: Tensor | None,
    kind: int,
    offset: int,
    normalize: bool,
) -> Tensor:
    if backends.choose("sigmoid", image.device.type, image.dtype) == "reference":
        z = reference.logits(image, text, scale, bias, normalize)
        return reference.sigmoid_row_losses(z, positive_like(image, text, image_group, text_group, kind, offset))
    losses = image.new_empty(image.shape[0], dtype=torch.float64)
    _native(losses, None, None, image, text, scale, bias, image_group, text_group, kind, offset, normalize)
    return losses.float()


def _run_backward(
    grad_row: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    image_group: Tensor | None,
    text_group: Tensor | None,
    kind: int,
    offset: int,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backends.choose("sigmoid", image.device.type, image.dtype) == "reference":
        positive = positive_like(image, text, image_group, text_group, kind, offset)
        grads = reference.sigmoid_backward(grad_row, image, text, scale, bias, positive, normalize)
        return grads[0].to(image.dtype), grads[1].to(image.dtype), grads[2], grads[3]
    grads = _fake_backward(grad_row, image, text, scale, bias)
    _native(None, grad_row.contiguous(), grads, image, text, scale, bias, image_group, text_group, kind, offset, normalize)  # fmt: skip
    return grads


def _loss_and_grads(factor: float, image: Tensor, text: Tensor, *rest: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    weights = image.new_full((image.shape[0],), factor, dtype=torch.promote_types(image.dtype, torch.float32))
    if backends.choose("sigmoid", image.device.type, image.dtype) == "reference":
        loss = _total(_run_forward(image, text, *rest)) * factor
        return loss, _run_backward(weights, image, text, *rest)
    losses = image.new_empty(image.shape[0], dtype=torch.float64)
    grads = _fake_backward(weights, image, text, *rest)
    _native(losses, weights, grads, image, text, *rest)
    return (losses.sum() * factor).float(), grads


def _native(
    losses: Tensor | None,
    weights: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    image_group: Tensor | None,
    text_group: Tensor | None,
    kind: int,
    offset: int,
    normalize: bool,
) -> None:
    """One walk: the losses of the rows, the gradients with the given weights of the rows, or both."""
    image, text = inner_contiguous(image), inner_contiguous(text)
    backend = backends.choose("sigmoid", image.device.type, image.dtype)
    outputs: tuple[Tensor | None, ...] = (None,) * 4
    if grads is not None:
        outputs = (*grads[:2], *(image.new_empty(image.shape[0], dtype=torch.float32) for _ in range(2)))
    backends.native.sigmoid_forward(  # type: ignore[union-attr]
        image, text, *factors(image, text, normalize), image_group, text_group, scale, bias, kind, offset, losses, weights, *outputs,
        *backends.execution(backend, image), contrastive.CHUNK_SIDE, workspace(image),
    )  # fmt: skip
    if grads is not None:
        scale_dot, bias_dot = outputs[2:]
        grads[2].copy_(scale_dot.sum(dtype=torch.float64))  # type: ignore[union-attr]
        grads[3].copy_(bias_dot.sum(dtype=torch.float64))  # type: ignore[union-attr]


class _SigmoidRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        _setup_context(ctx, args, None)
        return _run_forward(*args)

    @staticmethod
    def backward(ctx: Any, grad_row: Tensor) -> tuple[Any, ...]:
        run = torch.ops.vlmkernels.sigmoid_backward if torch.is_grad_enabled() else _run_backward
        return _apply_backward(ctx, grad_row, run)


class _SigmoidTotal(torch.autograd.Function):
    """factor * the sum of the rows' losses, the gradients taken along."""

    @staticmethod
    def forward(ctx: Any, factor: float, *args: Any) -> Tensor:
        loss, grads = _loss_and_grads(factor, *args)
        ctx.save_for_backward(*args[:6])
        ctx.grads, ctx.factor, ctx.options = grads, factor, args[6:]
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        # Matrices of the size of the features: the first derivative takes them instead of copies, a second walk remakes them.
        grads, ctx.grads = ctx.grads, None
        if torch.is_grad_enabled() or grads is None:  # the operator refuses a second derivative
            inputs = ctx.saved_tensors
            run = torch.ops.vlmkernels.sigmoid_backward if torch.is_grad_enabled() else _run_backward
            found = run((grad * ctx.factor).expand(inputs[0].shape[0]), *inputs, *ctx.options)
        else:
            found = tuple(g.mul_(grad) for g in grads)
        needs = ctx.needs_input_grad[1:5]
        return (None, *(g if need else None for g, need in zip(found, needs, strict=True)), *[None] * 5)


def _apply_backward(ctx: Any, grad_row: Tensor, run: Any) -> tuple[Any, ...]:
    found = run(grad_row, *ctx.saved_tensors, *ctx.options)
    return (*(g if need else None for g, need in zip(found, ctx.needs_input_grad[:4], strict=True)), *[None] * 5)


# --- torch.ops.vlmkernels.sigmoid_forward and sigmoid_backward ---

_TENSORS = (
    "Tensor image, Tensor text, Tensor logit_scale, Tensor logit_bias, Tensor? image_group, Tensor? text_group, "
    "int labels, int label_offset, bool normalize"
)


def _op_forward(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    image, text = checks.features(image, text)
    scale, bias = checks.number("logit_scale", scale, image), checks.number("logit_bias", bias, image)
    image_group, text_group, kind, offset, normalize = rest
    checks.operator_labels(kind, image_group, text_group, offset, image, text)
    return _run_forward(image, text, scale, bias, image_group, text_group, kind, offset, normalize)


def _fake_forward(image: Tensor, *rest: Any) -> Tensor:
    return image.new_empty(image.shape[0], dtype=torch.promote_types(image.dtype, torch.float32))


def _fake_backward(
    grad_row: Tensor, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return image.new_empty(image.shape), text.new_empty(text.shape), torch.empty_like(scale), torch.empty_like(bias)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _backward(ctx: Any, grad_row: Tensor) -> tuple[Any, ...]:
    return _apply_backward(ctx, grad_row, torch.ops.vlmkernels.sigmoid_backward)


def _autocast(dtype: torch.dtype, image: Tensor, text: Tensor, *rest: Any) -> tuple[Any, ...]:
    return *checks.promoted(image, text), *rest


define(
    "sigmoid_forward",
    f"({_TENSORS}) -> Tensor",
    _op_forward,
    _fake_forward,
    setup_context=_setup_context,
    backward=_backward,
    vmap=loop_over_batch("sigmoid_forward"),
    autocast=_autocast,
)
define(
    "sigmoid_backward",
    f"(Tensor grad_row, {_TENSORS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
    backward=refuse_double_backward("sigmoid_loss"),
    vmap=loop_over_batch("sigmoid_backward"),
)
