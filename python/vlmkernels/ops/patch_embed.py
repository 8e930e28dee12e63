"""Patch embedding: pixels to tokens in one pass.

Dosovitskiy et al., "An image is worth 16x16 words" (2020). The same mathematics in plain PyTorch: :mod:`vlmkernels.reference.patch_embed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.ops import _patch_embed_checks as checks
from vlmkernels.ops._framework import autocast_dtype, define, eager, loop_over_batch, needs_grad, refuse_double_backward
from vlmkernels.reference import patch_embed as reference
from vlmkernels.reference.patch_embed import LAYOUTS, Layout, Order

__all__ = ["patch_embed", "patch_embed_packed"]


def patch_embed(
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    position: Tensor | None = None,
    prefix: Tensor | None = None,
    prefix_at: str = "front",
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    layout: Layout | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Cuts images or clips into patches and projects them to tokens, as a convolution with stride = kernel does.

    token_n = W vec(x_n) + bias + position_n,  x = (pixel / 255 - mean) / std for uint8, (pixel - mean) / std for floating pixels.

    Args:
        pixels: (B, C, H, W), (B, H, W, C), (B, T, C, H, W) or (B, T, H, W, C); uint8, or the weight's dtype; any strides. Trailing pixels that fill no patch are dropped.
        weight: (E, C, P, P) as Conv2d or (E, C, Pt, P, P) as Conv3d stores it; float32, bfloat16 or float16; patches may be rectangular.
        bias: (E,).
        position: (tokens, E), added to all tokens, or (patches, E), added to the patch tokens.
        prefix: (n, E) tokens (CLS, registers) written in front of the patches, or behind them with ``prefix_at="back"``.
        mean, std: C numbers each, for the normalisation above.
        layout: "BCHW", "BHWC", "BTCHW" or "BTHWC"; by default inferred from where the weight's C is.
        out_dtype: of the tokens; the weight's by default.

    Returns:
        (B, tokens, E), contiguous; patches in raster order (time, row, column). Gradients: weight, bias, position, prefix, floating pixels.

    Raises:
        ValueError, TypeError, NotImplementedError: naming the argument and the remedy.
    """
    checks.check_weight(weight)
    pixels, weight, bias, position, prefix = _autocast(pixels, weight, bias, position, prefix)
    form = checks.check_pixels(pixels, weight, layout)
    patches = checks.count_patches(pixels, weight, form)
    checks.check_vectors(weight, bias, position, prefix, prefix_at, patches)
    return _embed(pixels, weight, bias, position, prefix, mean, std, form, prefix_at, out_dtype)


def patch_embed_packed(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    order: Order,
    position: Tensor | None = None,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """:func:`patch_embed` of patches that are cut already (Qwen-VL, SigLIP 2 NaFlex and others).

    Args:
        patches: (N, K) or (B, N, K), K = C Pt Ph Pw; uint8 or the weight's dtype; contiguous in K.
        order: what the K numbers are, slowest first: "CPP" (channel, row, column), "PPC", "CTPP" (channel, time, row, column), "TPPC".
        position: (N, E), one row per patch.
        Others as in :func:`patch_embed`.

    Returns:
        (N, E) or (B, N, E).
    """
    checks.check_weight(weight)
    patches, weight, bias, position, _ = _autocast(patches, weight, bias, position, None)
    checks.check_packed(patches, weight, order)
    checks.check_vectors(weight, bias, position, None, "front", patches.shape[-2])
    if patches.dim() == 2:
        return _embed(patches[None], weight, bias, position, None, mean, std, order, "front", out_dtype)[0]
    return _embed(patches, weight, bias, position, None, mean, std, order, "front", out_dtype)


def _autocast(pixels: Tensor, *parameters: Tensor | None) -> tuple[Any, ...]:
    dtype = autocast_dtype(pixels.device.type) if isinstance(pixels, Tensor) else None
    return (pixels, *parameters) if dtype is None else _cast(dtype, pixels, *parameters)


def _cast(dtype: torch.dtype, pixels: Tensor, *parameters: Any) -> tuple[Any, ...]:
    pixels = pixels.to(dtype) if pixels.is_floating_point() else pixels
    return pixels, *(p.to(dtype) if isinstance(p, Tensor) and p.is_floating_point() else p for p in parameters)


def _embed(
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position: Tensor | None,
    prefix: Tensor | None,
    mean: Tensor | Sequence[float] | None,
    std: Tensor | Sequence[float] | None,
    form: str,
    prefix_at: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    mean, std = checks.channel_tensor("mean", mean, weight), checks.channel_tensor("std", std, weight)
    out_dtype = checks.check_out_dtype(out_dtype, weight)
    args = (pixels, weight, bias, position, prefix, mean, std, form, prefix_at, out_dtype)
    if not eager(*args[:7]):
        return torch.ops.vlmkernels.patch_embed_forward(*args)  # type: ignore[no-any-return]
    if needs_grad(*args[:5]):
        return _PatchEmbed.apply(*args)  # type: ignore[no-any-return]
    return _run_forward(*args)


def _kernel_args(pixels: Tensor, weight: Tensor, form: str) -> tuple[Tensor, Tensor, int]:
    """What the binding takes: canonical pixels, 5-D weight, and how the pixels are packed."""
    weight = weight if weight.dim() == 5 else weight.unsqueeze(2)
    packed = 0 if form in LAYOUTS else 1 if form in ("CPP", "CTPP") else 2
    return (pixels if packed else reference.to_canonical(pixels, form)), weight.contiguous(), packed


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _run_forward(
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position: Tensor | None,
    prefix: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    form: str,
    prefix_at: str,
    out_dtype: torch.dtype,
) -> Tensor:
    backend = backends.choose("patch_embed", pixels.device.type, weight.dtype)
    if backend == "reference":
        if form in LAYOUTS:
            return reference.patch_embed(
                pixels, weight, bias, position, prefix, mean, std, form, prefix_at, out_dtype
            ).contiguous()
        return reference.patch_embed_packed(pixels, weight, bias, position, mean, std, form, out_dtype).contiguous()
    out = pixels.new_empty(_out_shape(pixels, weight, prefix, form), dtype=out_dtype)
    x, w, packed = _kernel_args(pixels, weight, form)
    vectors = map(_contiguous, (bias, position, prefix, mean, std))
    backends.native.patch_embed_forward(  # type: ignore[union-attr]
        x, w, *vectors, packed, prefix_at == "back", out, *backends.execution(backend, pixels)
    )
    return out


def _out_shape(pixels: Tensor, weight: Tensor, prefix: Tensor | None, form: str) -> tuple[int, int, int]:
    patches = checks.count_patches(pixels, weight, form) if form in LAYOUTS else pixels.shape[1]
    return pixels.shape[0], patches + (0 if prefix is None else prefix.shape[0]), weight.shape[0]


def _run_backward(
    grad_out: Tensor,
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position: Tensor | None,
    prefix: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    form: str,
    prefix_at: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    backend = backends.choose("patch_embed", pixels.device.type, weight.dtype)
    if backend == "reference":
        return _reference_backward(grad_out, pixels, weight, bias, position, prefix, mean, std, form, prefix_at, needs)
    x, w, packed = _kernel_args(pixels, weight, form)
    grad_pixels = _empty_gradient(pixels, weight, form) if needs[0] else None
    grad_weight = torch.empty_like(w) if needs[1] else None
    others = [
        None if tensor is None or not need else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor, need in zip((bias, position, prefix), needs[2:], strict=True)
    ]
    grad_canonical = None
    if grad_pixels is not None:
        grad_canonical = grad_pixels if packed else reference.to_canonical(grad_pixels, form)
        # The kernel writes gradients with the strides of the pixels it is given.
        x = x if x.stride() == grad_canonical.stride() else torch.empty_like(grad_canonical).copy_(x)
    vectors = map(_contiguous, (bias, position, prefix, mean, std))
    backends.native.patch_embed_backward(  # type: ignore[union-attr]
        grad_out.contiguous(), x, w, *vectors, packed, prefix_at == "back", grad_canonical, grad_weight, *others,
        *backends.execution(backend, pixels), lambda numbers: pixels.new_empty(numbers, dtype=torch.float32),
    )  # fmt: skip
    if grad_weight is not None:
        grad_weight = torch.empty_like(weight).copy_(grad_weight.view(weight.shape))
    return tuple(grad_out.new_empty(0) if grad is None else grad for grad in (grad_pixels, grad_weight, *others))  # type: ignore[return-value]


def _empty_gradient(pixels: Tensor, weight: Tensor, form: str) -> Tensor:
    """Zero if there are pixels that fill no patch: they get no gradient from the kernel."""
    covered = pixels.numel()
    if form in LAYOUTS:
        covered = pixels.shape[0] * checks.count_patches(pixels, weight, form) * weight[0].numel()
    return torch.empty_like(pixels) if covered == pixels.numel() else torch.zeros_like(pixels)


def _reference_backward(
    grad_out: Tensor,
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position: Tensor | None,
    prefix: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    form: str,
    prefix_at: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = reference.patch_embed_backward(grad_out, pixels, weight, bias, position, prefix, mean, std, form, prefix_at)
    return tuple(  # type: ignore[return-value]
        torch.empty_like(tensor).copy_(grad)
        if need and tensor is not None and grad is not None
        else grad_out.new_empty(0)
        for grad, tensor, need in zip(grads, (pixels, weight, bias, position, prefix), needs, strict=True)
    )


class _PatchEmbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        _setup_context(ctx, args, None)
        return _run_forward(*args)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
        run = torch.ops.vlmkernels.patch_embed_backward if torch.is_grad_enabled() else _run_backward
        return _apply_backward(ctx, grad_out, run)


def _apply_backward(ctx: Any, grad_out: Tensor, run: Any) -> tuple[Any, ...]:
    grads = run(grad_out, *ctx.saved_tensors, *ctx.forms, ctx.needs)
    return (*(grad if need else None for grad, need in zip(grads, ctx.needs, strict=True)), *[None] * 5)


# --- torch.ops.vlmkernels.patch_embed_forward and patch_embed_backward ---

_TENSORS = "Tensor pixels, Tensor weight, Tensor? bias, Tensor? position, Tensor? prefix, Tensor? mean, Tensor? std, str layout, str prefix_at"


def _op_forward(
    pixels: Tensor, weight: Tensor, bias: Tensor | None, position: Tensor | None, prefix: Tensor | None, *rest: Any
) -> Tensor:
    _, _, form, prefix_at, out_dtype = rest
    checks.check_weight(weight)
    if form in LAYOUTS:
        checks.check_pixels(pixels, weight, form)
        patches = checks.count_patches(pixels, weight, form)
    else:
        checks.check_packed(pixels, weight, form)
        if pixels.dim() != 3:
            raise ValueError(
                f"patches has shape {checks.shape_text(pixels)}; the operator takes (B, N, K): add a batch dimension"
            )
        patches = pixels.shape[1]
    checks.check_vectors(weight, bias, position, prefix, prefix_at, patches)
    checks.check_out_dtype(out_dtype, weight)
    return _run_forward(pixels, weight, bias, position, prefix, *rest)


def _fake_forward(
    pixels: Tensor, weight: Tensor, bias: Any, position: Any, prefix: Tensor | None, *rest: Any
) -> Tensor:
    return pixels.new_empty(_out_shape(pixels, weight, prefix, rest[2]), dtype=rest[4])


def _fake_backward(
    grad_out: Tensor,
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position: Tensor | None,
    prefix: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    def like(tensor: Tensor | None, need: bool, contiguous: bool) -> Tensor:
        if tensor is None or not need:
            return grad_out.new_empty(0)
        return torch.empty_like(tensor, memory_format=torch.contiguous_format if contiguous else torch.preserve_format)

    tensors = (pixels, weight, bias, position, prefix)
    return tuple(like(t, need, i >= 2) for i, (t, need) in enumerate(zip(tensors, rest[-1], strict=True)))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.forms = inputs[7:9]
    ctx.needs = [bool(need) for need in ctx.needs_input_grad[:5]]


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    return _apply_backward(ctx, grad_out, torch.ops.vlmkernels.patch_embed_backward)


def _vmap_forward(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    """A batch of images folds into the batch; a batch of weights is a loop."""
    operator = torch.ops.vlmkernels.patch_embed_forward
    if all(dim is None for dim in in_dims[1:]):
        pixels = args[0].movedim(in_dims[0], 0)
        return operator(pixels.flatten(0, 1), *args[1:]).unflatten(0, (info.batch_size, -1)), 0
    return loop_over_batch("patch_embed_forward")(info, in_dims, *args)


define(
    "patch_embed_forward",
    f"({_TENSORS}, ScalarType out_dtype) -> Tensor",
    _op_forward,
    _fake_forward,
    setup_context=_setup_context,
    backward=_backward,
    vmap=_vmap_forward,
    autocast=_cast,
)
define(
    "patch_embed_backward",
    f"(Tensor grad_out, {_TENSORS}, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
    backward=refuse_double_backward("patch_embed"),
    vmap=loop_over_batch("patch_embed_backward"),
)
