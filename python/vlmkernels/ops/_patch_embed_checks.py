"""Argument checks of the patch embedding. Every message names the argument, what was given and the remedy."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from vlmkernels.ops._attention_checks import shape_text
from vlmkernels.ops._framework import eager
from vlmkernels.reference.patch_embed import LAYOUTS, ORDERS

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def check_weight(weight: Tensor) -> None:
    _tensor("weight", weight)
    if weight.dtype not in _DTYPES:
        raise TypeError(f"weight is {weight.dtype}; it must be float32, bfloat16 or float16: convert with .to(...)")
    if weight.dim() not in (4, 5):
        raise ValueError(f"weight has shape {shape_text(weight)}; it must be (E, C, P, P) or (E, C, Pt, P, P)")
    if any(size < 1 for size in weight.shape):
        raise ValueError(f"weight has shape {shape_text(weight)}; every size must be at least 1")


def _check_dtype_and_device(name: str, pixels: Tensor, weight: Tensor) -> None:
    if pixels.dtype not in (torch.uint8, weight.dtype):
        raise TypeError(
            f"{name} is {pixels.dtype}; it must be uint8 or the weight's {weight.dtype}: convert with .to({weight.dtype})"
        )
    if pixels.device != weight.device:
        raise ValueError(f"{name} is on {pixels.device} and weight on {weight.device}; move one")


def check_pixels(pixels: Tensor, weight: Tensor, layout: str | None) -> str:
    """Checks the pixels and returns their layout."""
    _tensor("pixels", pixels)
    _check_dtype_and_device("pixels", pixels, weight)
    rank = pixels.dim()
    if rank not in (4, 5):
        raise ValueError(
            f"pixels has shape {shape_text(pixels)}; it must be (B, C, H, W), (B, H, W, C), (B, T, C, H, W) or (B, T, H, W, C)"
        )
    channels = weight.shape[1]
    if layout is None:
        layout = _infer_layout(pixels, channels)
    elif layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; use one of {', '.join(LAYOUTS)}, or None to infer it")
    elif len(layout) != rank:
        raise ValueError(f'pixels has {rank} dimensions and layout "{layout}" names {len(layout)}; they must agree')
    if pixels.shape[layout.index("C")] != channels:
        raise ValueError(
            f'pixels has {pixels.shape[layout.index("C")]} channels (layout "{layout}") and weight {channels}; they must be equal'
        )
    if rank == 4 and weight.dim() == 5 and weight.shape[2] != 1:
        raise ValueError(
            f"pixels has no time axis and weight has tubelets of {weight.shape[2]} frames; pass (B, T, C, H, W)"
        )
    return layout


def _infer_layout(pixels: Tensor, channels: int) -> str:
    time = "T" if pixels.dim() == 5 else ""
    first, last = pixels.shape[-3] == channels, pixels.shape[-1] == channels
    if first and last:
        raise ValueError(
            f'pixels {shape_text(pixels)} has {channels} entries both where "B{time}CHW" and where "B{time}HWC" have channels; pass layout'
        )
    if not first and not last:
        raise ValueError(
            f"pixels {shape_text(pixels)} has no axis of the weight's {channels} channels in third last or last place; check the layout"
        )
    return f"B{time}CHW" if first else f"B{time}HWC"


def count_patches(pixels: Tensor, weight: Tensor, layout: str) -> int:
    sizes = dict(zip(layout, pixels.shape, strict=True))
    patch_t = weight.shape[2] if weight.dim() == 5 else 1
    return (sizes.get("T", 1) // patch_t) * (sizes["H"] // weight.shape[-2]) * (sizes["W"] // weight.shape[-1])


def check_packed(patches: Tensor, weight: Tensor, order: str) -> None:
    _tensor("patches", patches)
    _check_dtype_and_device("patches", patches, weight)
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; name the layout of a patch, slowest first: one of {', '.join(ORDERS)}")
    if "T" not in order and weight.dim() == 5 and weight.shape[2] != 1:
        raise ValueError(
            f'order "{order}" has no time and weight has tubelets of {weight.shape[2]} frames; use "CTPP" or "TPPC"'
        )
    if patches.dim() not in (2, 3):
        raise ValueError(f"patches has shape {shape_text(patches)}; it must be (N, K) or (B, N, K)")
    elements = weight[0].numel()
    if patches.shape[-1] != elements:
        raise ValueError(
            f"patches has {patches.shape[-1]} numbers per patch and weight takes {elements} (C * Pt * Ph * Pw)"
        )
    if patches.stride(-1) != 1 and patches.shape[-1] > 1:
        raise ValueError(
            f"patches has stride {patches.stride(-1)} in its last dimension; it must be 1: call patches.contiguous()"
        )


def check_vectors(
    weight: Tensor, bias: Tensor | None, position: Tensor | None, prefix: Tensor | None, prefix_at: str, patches: int
) -> None:
    embed = weight.shape[0]
    for name, tensor, rank in (("bias", bias, 1), ("position", position, 2), ("prefix", prefix, 2)):
        if tensor is None:
            continue
        _tensor(name, tensor)
        if tensor.dtype != weight.dtype:
            raise TypeError(f"{name} is {tensor.dtype} and weight {weight.dtype}; convert it with .to({weight.dtype})")
        if tensor.device != weight.device:
            raise ValueError(f"{name} is on {tensor.device} and weight on {weight.device}; move it")
        if tensor.dim() != rank or tensor.shape[-1] != embed:
            form = f"({embed},)" if rank == 1 else f"(n, {embed})"
            raise ValueError(f"{name} has shape {shape_text(tensor)}; it must be {form}, E being {embed}")
    if prefix_at not in ("front", "back"):
        raise ValueError(f'prefix_at is {prefix_at!r}; use "front" or "back"')
    prefixes = 0 if prefix is None else prefix.shape[0]
    if position is not None and position.shape[0] not in (patches, patches + prefixes):
        wanted = f"{patches} (patches)" + (f" or {patches + prefixes} (all tokens)" if prefixes else "")
        raise ValueError(
            f"position has {position.shape[0]} rows; it needs {wanted}: interpolate it to the grid of the input"
        )


def _constants(values: tuple[float, ...], weight: Tensor) -> Tensor:
    """On a GPU the copy would be waited for: it is made once."""
    if weight.is_cuda and eager(weight):
        return _cuda_constants(values, weight.device)
    return torch.tensor(values, dtype=torch.float32, device=weight.device)


@functools.lru_cache(maxsize=64)
def _cuda_constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # others may save it for a backward pass
        return torch.tensor(values, dtype=torch.float32, device=device)


def channel_tensor(name: str, values: Tensor | Sequence[float] | None, weight: Tensor) -> Tensor | None:
    """mean or std as a float32 tensor of C numbers on the weight's device."""
    if values is None:
        return None
    if not isinstance(values, Tensor):
        try:
            values = _constants(tuple(float(value) for value in values), weight)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must be a tensor or a sequence of numbers, one per channel, got {values!r}"
            ) from None
    if values.requires_grad:
        raise NotImplementedError(f"{name} requires a gradient, and it gets none: pass {name}.detach()")
    values = values.to(dtype=torch.float32, device=weight.device)
    if values.shape != (weight.shape[1],):
        raise ValueError(
            f"{name} has shape {shape_text(values)}; it must hold one number for each of the {weight.shape[1]} channels"
        )
    return values


def check_out_dtype(out_dtype: torch.dtype | None, weight: Tensor) -> torch.dtype:
    if out_dtype is None:
        return weight.dtype
    if out_dtype not in _DTYPES:
        raise TypeError(f"out_dtype is {out_dtype}; it must be float32, bfloat16 or float16")
    return out_dtype
