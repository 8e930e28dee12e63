"""Random views of drawings on white: turned, resized, moved, recoloured a little. uint8 in, uint8 out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["augment", "transform"]


def augment(
    images: Tensor,
    generator: torch.Generator,
    *,
    degrees: float = 10.0,
    scale: float = 0.15,
    shift: float = 0.08,
    color: float = 0.1,
) -> Tensor:
    """(B, 3, H, W) uint8; every image gets its own rotation, size, aspect, place (in image widths), contrast per channel and brightness."""
    n = len(images)

    def draw(width: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * width

    angle, size, aspect = draw(math.radians(degrees)), 1 + draw(scale), torch.exp(draw(0.1))
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * size * aspect, -angle.sin() * size, draw(2 * shift)], -1),
            torch.stack([angle.sin() * size, angle.cos() * size / aspect, draw(2 * shift)], -1),
        ],
        1,
    )
    moved = transform(images, matrix)
    return (moved * (1 + draw(color, 3, 1, 1)) + draw(color * 60, 1, 1, 1)).clamp(0, 255).to(torch.uint8)


def transform(images: Tensor, matrix: Tensor) -> Tensor:
    """Resamples uint8 images through affine matrices (B, 2, 3); white comes in from outside. Returns floats in 0..255."""
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return 255 - F.grid_sample(255 - images.float(), grid, align_corners=False)
