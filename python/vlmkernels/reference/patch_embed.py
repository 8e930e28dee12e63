"""Patch embedding in plain PyTorch: cut the image into patches, flatten, project, add position embeddings, put prefix tokens around.

    x = (pixel / 255 - mean) / std           (uint8; floating pixels without the / 255; mean 0 and std 1 where absent)
    token_n = W vec(patch_n) + bias + position_n

Dosovitskiy et al., "An image is worth 16x16 words" (2020); tubelets of video: Arnab et al., "ViViT" (2021). Arithmetic is at least fp32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["LAYOUTS", "ORDERS", "Layout", "Order", "patch_embed", "patch_embed_packed", "patchify", "to_canonical"]

Layout = Literal["BCHW", "BHWC", "BTCHW", "BTHWC"]
Order = Literal["CPP", "PPC", "CTPP", "TPPC"]

#: Permutations of a layout to (B, T, C, H, W), after a missing time axis has been inserted behind the batch.
LAYOUTS: dict[str, tuple[int, ...]] = {
    "BCHW": (0, 1, 2, 3, 4),
    "BHWC": (0, 1, 4, 2, 3),
    "BTCHW": (0, 1, 2, 3, 4),
    "BTHWC": (0, 1, 4, 2, 3),
}
ORDERS = ("CPP", "PPC", "CTPP", "TPPC")


def to_canonical(pixels: Tensor, layout: str) -> Tensor:
    """A view of the pixels as (B, T, C, H, W)."""
    if "T" not in layout:
        pixels = pixels.unsqueeze(1)
    return pixels.permute(LAYOUTS[layout])


def patchify(pixels: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """(B, T, C, H, W) -> (B, patches, C * Pt * Ph * Pw): patches in raster order, inside a patch channel, time, row, column."""
    batch, frames, channels, height, width = pixels.shape
    pt, ph, pw = patch
    t, h, w = frames // pt, height // ph, width // pw
    pixels = pixels[:, : t * pt, :, : h * ph, : w * pw].reshape(batch, t, pt, channels, h, ph, w, pw)
    return pixels.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(batch, t * h * w, channels * pt * ph * pw)


def _normalise(
    pixels: Tensor, mean: Tensor | None, std: Tensor | None, dtype: torch.dtype, channel_axis: int
) -> Tensor:
    x = pixels.to(dtype)
    if pixels.dtype == torch.uint8:
        x = x / 255
    shape = [1] * x.dim()
    shape[channel_axis] = -1
    if mean is not None:
        x = x - mean.to(dtype).view(shape)
    if std is not None:
        x = x / std.to(dtype).view(shape)
    return x


def _weight_3d(weight: Tensor) -> Tensor:
    return weight.unsqueeze(2) if weight.dim() == 4 else weight


def _project(patches: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    tokens = patches @ weight.to(dtype).flatten(1).mT
    return tokens if bias is None else tokens + bias.to(dtype)


def patch_embed(
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    position: Tensor | None = None,
    prefix: Tensor | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    layout: str = "BCHW",
    prefix_at: str = "front",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """pixels in `layout`, weight (E, C, P, P) or (E, C, Pt, P, P) -> (B, tokens, E)."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    weight = _weight_3d(weight)
    x = _normalise(to_canonical(pixels, layout), mean, std, dtype, channel_axis=2)
    tokens = _project(patchify(x, (weight.shape[2], weight.shape[3], weight.shape[4])), weight, bias, dtype)
    patches = tokens.shape[1]
    if position is not None and position.shape[0] == patches:
        tokens = tokens + position.to(dtype)
    if prefix is not None:
        ends = [prefix.to(dtype).expand(tokens.shape[0], -1, -1), tokens]
        tokens = torch.cat(ends if prefix_at == "front" else ends[::-1], dim=1)
    if position is not None and position.shape[0] != patches:
        tokens = tokens + position.to(dtype)
    return tokens.to(out_dtype or weight.dtype)


def reorder_packed(patches: Tensor, order: str, channels: int, patch: tuple[int, int, int]) -> Tensor:
    """(..., K) in any order -> (..., C, Pt, Ph, Pw)."""
    pt, ph, pw = patch
    lead = patches.shape[:-1]
    if order in ("CPP", "CTPP"):
        return patches.reshape(*lead, channels, pt, ph, pw)
    return patches.reshape(*lead, pt, ph, pw, channels).movedim(-1, -4)


def patch_embed_packed(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    position: Tensor | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    order: str = "CPP",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """patches (..., N, K) cut already -> (..., N, E)."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    weight = _weight_3d(weight)
    x = reorder_packed(patches, order, weight.shape[1], (weight.shape[2], weight.shape[3], weight.shape[4]))
    x = _normalise(x, mean, std, dtype, channel_axis=x.dim() - 4)
    tokens = _project(x.flatten(-4), weight, bias, dtype)
    if position is not None:
        tokens = tokens + position.to(dtype)
    return tokens.to(out_dtype or weight.dtype)


def patch_embed_backward(
    grad_out: Tensor,
    pixels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    position: Tensor | None = None,
    prefix: Tensor | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    form: str = "BCHW",
    prefix_at: str = "front",
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of pixels (None for uint8), weight, bias, position and prefix; `form` is a layout or, for packed patches, an order.

    dW = sum dOut x patch,  dPatch = W^T dOut / std,  dPosition and dPrefix are sums over the batch,  dBias the sum over all patch tokens.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    w = _weight_3d(weight)
    channels, patch = w.shape[1], (w.shape[2], w.shape[3], w.shape[4])
    grad = grad_out.to(dtype)
    tokens = grad.sum(0)
    prefixes = 0 if prefix is None else prefix.shape[0]
    patches = tokens.shape[0] - prefixes
    start = prefixes if prefix_at == "front" else 0
    grad_patches = grad[:, start : start + patches]

    packed = form not in LAYOUTS
    if packed:
        x = reorder_packed(pixels, form, channels, patch)
        x = _normalise(x, mean, std, dtype, channel_axis=x.dim() - 4).flatten(-4)
    else:
        x = patchify(_normalise(to_canonical(pixels, form), mean, std, dtype, channel_axis=2), patch)
    grad_weight = torch.einsum("bne,bnk->ek", grad_patches, x).view(weight.shape)

    grad_pixels = None
    if pixels.is_floating_point():
        grad_x = (grad_patches @ w.to(dtype).flatten(1)).unflatten(-1, (channels, *patch))
        if std is not None:
            grad_x = grad_x / std.to(dtype).view(-1, 1, 1, 1)
        if packed:
            grad_pixels = (grad_x if form in ("CPP", "CTPP") else grad_x.movedim(-4, -1)).flatten(-4)
        else:
            grad_pixels = _unpatchify(grad_x, pixels, form, patch)
    grad_position = None
    if position is not None:
        grad_position = tokens if position.shape[0] == tokens.shape[0] else tokens[start : start + patches]
    grad_prefix = None
    if prefix is not None:
        grad_prefix = tokens[:prefixes] if prefix_at == "front" else tokens[patches:]
    return grad_pixels, grad_weight, None if bias is None else grad_patches.sum((0, 1)), grad_position, grad_prefix


def _unpatchify(grad_x: Tensor, pixels: Tensor, layout: str, patch: tuple[int, int, int]) -> Tensor:
    """(B, patches, C, Pt, Ph, Pw) back to the shape of the pixels, zero where no patch reaches."""
    out = torch.zeros(pixels.shape, dtype=grad_x.dtype, device=pixels.device)
    canonical = to_canonical(out, layout)
    pt, ph, pw = patch
    batch, frames, channels, height, width = canonical.shape
    t, h, w = frames // pt, height // ph, width // pw
    grad_x = grad_x.view(batch, t, h, w, channels, pt, ph, pw).permute(0, 1, 5, 4, 2, 6, 3, 7)
    canonical[:, : t * pt, :, : h * ph, : w * pw] = grad_x.reshape(batch, t * pt, channels, h * ph, w * pw)
    return out
