"""Argument checks of the contrastive losses, and what both losses make of their arguments.

isinstance takes tuples here: torch.compile of torch 2.4 cannot trace a union."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vlmkernels.ops._framework import autocast_dtype

__all__ = ["GROUPS", "Labels", "check_reduction", "check_smoothing", "features", "labels", "number", "operator_labels"]

#: Codes of the kernels for what the positives are.
NONE, DIAGONAL, GROUPS = 0, 1, 2
LABEL_NAMES = (None, "diagonal", "groups")

Labels = str | Tensor | tuple[Tensor, Tensor] | None


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(str(n) for n in tensor.shape)})"


def features(image: Any, text: Any) -> tuple[Tensor, Tensor]:
    """Both sides checked, of one dtype (under autocast promoted to the wider: a loss is never computed in less than its inputs)."""
    for name, tensor in (("image", image), ("text", text)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is {type(tensor).__name__}; give a tensor of features (rows, D)")
        if tensor.dim() != 2:
            raise ValueError(
                f"{name} has shape {_shape(tensor)}; give (rows, D), for instance {name}.flatten(0, -2) for more dimensions"
            )
        if not tensor.is_floating_point():
            raise TypeError(f"{name} has dtype {tensor.dtype}; give float32, bfloat16 or float16 features")
    if image.shape[1] != text.shape[1]:
        raise ValueError(
            f"image has width {image.shape[1]} and text {text.shape[1]}; project both to one width before the loss"
        )
    if image.shape[1] == 0:
        raise ValueError("image and text have width 0; features need at least one number")
    if image.device != text.device:
        raise ValueError(f"image is on {image.device} and text on {text.device}; move them to one device")
    if image.dtype != text.dtype:
        if autocast_dtype(image.device.type) is None:
            raise TypeError(
                f"image has dtype {image.dtype} and text {text.dtype}; convert one with .to(), or run under autocast"
            )
        image, text = promoted(image, text)
    return image, text


def promoted(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(image.dtype, text.dtype)
    return image.to(dtype), text.to(dtype)


def number(name: str, value: Any, image: Tensor) -> Tensor:
    """logit_scale or logit_bias as a scalar tensor in the precision of the loss."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} has shape {_shape(value)}; give a number or a tensor of one element")
        if not value.is_floating_point():
            raise TypeError(f"{name} has dtype {value.dtype}; give a floating number")
        if value.device != image.device:
            raise ValueError(f"{name} is on {value.device} and image on {image.device}; move it to that device")
        return value.reshape(()).to(dtype)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {type(value).__name__}; give a number or a tensor of one element")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; give a finite number (the linear multiplier, not its logarithm)")
    return torch.full((), float(value), dtype=dtype, device=image.device)  # a copy from the CPU would wait for the GPU


def labels(given: Any, label_offset: Any, image: Tensor, text: Tensor) -> tuple[int, Tensor | None, Tensor | None, int]:
    """(code, image groups, text groups, offset)."""
    rows, columns = image.shape[0], text.shape[0]
    if isinstance(label_offset, bool) or not isinstance(label_offset, (int, torch.SymInt)):
        raise TypeError(f"label_offset is {type(label_offset).__name__}; give an int")
    if given is None:
        return NONE, None, None, 0
    if isinstance(given, str):
        if given != "diagonal":
            raise ValueError(f'labels is {given!r}; use "diagonal", group ids, or None where the loss allows it')
        if label_offset < 0 or label_offset + rows > columns:
            raise ValueError(
                f"label_offset is {label_offset} with {rows} images and {columns} texts: row i's text is i + label_offset, so 0 <= label_offset <= "
                f"{columns - rows} is needed (swap the sides, or give group ids, where there are more images than texts)"
            )
        return DIAGONAL, None, None, label_offset  # type: ignore[return-value]
    if isinstance(given, Tensor):
        if rows != columns:
            raise ValueError(
                f"labels is one tensor with {rows} images and {columns} texts; give a pair (image ids, text ids) for sides of different length"
            )
        given = (given, given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(
            f'labels is {type(given).__name__}; use "diagonal", a tensor of group ids, or a pair of such tensors'
        )
    if label_offset != 0:
        raise ValueError(f"label_offset is {label_offset} with group ids; it belongs to labels='diagonal' only")
    return GROUPS, _ids("image", given[0], image), _ids("text", given[1], text), 0


def _ids(side: str, ids: Any, features: Tensor) -> Tensor:
    if not isinstance(ids, Tensor):
        raise TypeError(f"labels for {side} is {type(ids).__name__}; give an integer tensor")
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
        raise TypeError(f"labels for {side} has dtype {ids.dtype}; group ids are integers")
    if ids.shape != (features.shape[0],):
        raise ValueError(f"labels for {side} has shape {_shape(ids)}; give one id per row, ({features.shape[0]},)")
    if ids.device != features.device:
        raise ValueError(f"labels for {side} is on {ids.device} and {side} on {features.device}; move it there")
    return ids.to(torch.int64).contiguous()


def check_reduction(reduction: Any, symmetric: bool, image: Tensor, text: Tensor) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction is {reduction!r}; use "mean", "sum" or "none"')
    if reduction == "none" and symmetric and image.shape[0] != text.shape[0]:
        raise ValueError(
            f'reduction="none" of the symmetric loss pairs row i with column i, and there are {image.shape[0]} images and {text.shape[0]} texts; '
            'use symmetric=False, or "mean" or "sum"'
        )


def check_smoothing(label_smoothing: Any) -> float:
    if isinstance(label_smoothing, bool) or not isinstance(label_smoothing, (int, float)):
        raise TypeError(f"label_smoothing is {type(label_smoothing).__name__}; give a number in [0, 1]")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing}; give a number in [0, 1]")
    return float(label_smoothing)


def operator_labels(
    kind: int, image_group: Tensor | None, text_group: Tensor | None, label_offset: int, image: Tensor, text: Tensor
) -> None:
    """The same checks for arguments that come in through torch.ops."""
    if kind not in (NONE, DIAGONAL, GROUPS):
        raise ValueError(f"labels is {kind}; use 0 (none), 1 (diagonal) or 2 (groups)")
    given: Any = None if kind == NONE else "diagonal" if kind == DIAGONAL else (image_group, text_group)
    labels(given, label_offset, image, text)
