"""Building blocks shared by the models: patch embedding, self-attention, MLP, pre-norm block."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmkernels.ops.attention import attention
from vlmkernels.ops.patch_embed import patch_embed

__all__ = ["Block", "MultiLayerPerceptron", "PatchEmbedding", "SelfAttention", "interpolate_position"]


def interpolate_position(
    position: Tensor, prefix: int, grid: tuple[int, int, int], target: tuple[int, int, int]
) -> Tensor:
    """Position embeddings (prefix + t h w, E) learned on `grid`, resampled to `target`: bicubic with antialiasing in space, linear in time; the prefix stays."""
    if grid == target:
        return position
    width = position.shape[1]
    table = position[prefix:].float().view(*grid, width).permute(0, 3, 1, 2)
    if grid[1:] != target[1:]:
        table = F.interpolate(table, size=target[1:], mode="bicubic", antialias=True, align_corners=False)
    table = table.permute(0, 2, 3, 1)
    if grid[0] != target[0]:
        columns = table.flatten(1).mT[None]
        table = F.interpolate(columns, size=target[0], mode="linear", align_corners=False)[0].mT
    return torch.cat([position[:prefix], table.reshape(-1, width).to(position.dtype)])


class PatchEmbedding(nn.Module):
    """Images or clips to tokens: one :func:`vlmkernels.patch_embed` call with prefix tokens and learned positions.

    `grid` is (T / Pt, H / Ph, W / Pw) of the sizes the positions are learned for; other sizes interpolate them. uint8 pixels are rescaled and normalised inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        width: int,
        patch: tuple[int, int, int],
        grid: tuple[int, int, int],
        channels: int = 3,
        prefix: int = 1,
        bias: bool = True,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        std: tuple[float, ...] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.weight = nn.Parameter(torch.empty(width, channels, *(patch if patch[0] > 1 else patch[1:])))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.prefix = nn.Parameter(torch.empty(prefix, width)) if prefix else None
        self.position = nn.Parameter(torch.empty(prefix + grid[0] * grid[1] * grid[2], width))
        self.register_buffer("mean", torch.tensor(mean[:channels]), persistent=False)
        self.register_buffer("std", torch.tensor(std[:channels]), persistent=False)
        nn.init.normal_(self.weight, std=(channels * patch[0] * patch[1] * patch[2]) ** -0.5)
        # Pixels of unit variance give patch embeddings of unit variance: much smaller positions would drown in them for the first thousand steps.
        nn.init.normal_(self.position, std=0.5)
        if self.prefix is not None:
            nn.init.normal_(self.prefix, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) or (B, T, C, H, W) -> (B, prefix + patches, width)."""
        frames = pixels.shape[1] if pixels.dim() == 5 else 1
        pt, ph, pw = self.patch
        target = (frames // pt, pixels.shape[-2] // ph, pixels.shape[-1] // pw)
        prefix = 0 if self.prefix is None else self.prefix.shape[0]
        return patch_embed(
            pixels if pixels.dtype == torch.uint8 else pixels.to(self.weight.dtype),
            self.weight,
            self.bias,
            position=interpolate_position(self.position, prefix, self.grid, target),
            prefix=self.prefix,
            mean=self.mean,
            std=self.std,
            layout="BTCHW" if pixels.dim() == 5 else "BCHW",
        )


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value. The head dimension must be a multiple of 8."""

    def __init__(self, width: int, heads: int, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.causal: Literal["top_left"] | None = "top_left" if causal else None
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, width) -> (B, S, width)."""
        out = attention(*self._split(x), causal=self.causal)
        return self.out(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def weights(self, x: Tensor) -> Tensor:
        """The attention probabilities (B, heads, S, S), for pictures: the kernels never make this matrix."""
        query, key, _ = self._split(x)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        return scores.softmax(-1)


class MultiLayerPerceptron(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, causal: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = SelfAttention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MultiLayerPerceptron(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]
