"""The Vision Transformer. Dosovitskiy et al., "An image is worth 16x16 words" (2020); tubelets of video as in Arnab et al., "ViViT" (2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vlmkernels.models.layers import Block, PatchEmbedding
from vlmkernels.models.pretrained import Config, PretrainedModel

__all__ = ["VisionTransformer", "VisionTransformerConfig"]


@dataclass
class VisionTransformerConfig(Config):
    """`image_size` and `patch_size` in pixels; `frames` and `tubelet_size` in frames, 1 for images. `classes` 0 leaves the head out."""

    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    classes: int = 0
    prefix_tokens: int = 1  # the class token and registers behind it
    pooling: Literal["class", "mean"] = "class"
    frames: int = 1
    tubelet_size: int = 1
    patch_bias: bool = True
    pre_norm: bool = False  # LayerNorm right behind the embedding, as CLIP has it
    norm_eps: float = 1e-6
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size or self.frames % self.tubelet_size:
            raise ValueError(
                f"image_size {self.image_size} and frames {self.frames} must be multiples of patch_size {self.patch_size} and tubelet_size {self.tubelet_size}"
            )
        if self.width % self.heads or self.width // self.heads % 8:
            raise ValueError(
                f"width {self.width} over heads {self.heads} must give a head dimension that is a multiple of 8"
            )
        if self.pooling not in ("class", "mean"):
            raise ValueError(f'pooling is {self.pooling!r}; use "class" or "mean"')
        if self.pooling == "class" and self.prefix_tokens < 1:
            raise ValueError('pooling is "class" without prefix_tokens; use prefix_tokens >= 1 or pooling "mean"')


class VisionTransformer(PretrainedModel):
    """Patches to tokens, pre-norm transformer blocks, final norm, pooling, head."""

    config_class = VisionTransformerConfig

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        c = self.config = config
        grid = c.image_size // c.patch_size
        self.embed = PatchEmbedding(
            c.width,
            (c.tubelet_size, c.patch_size, c.patch_size),
            (c.frames // c.tubelet_size, grid, grid),
            c.channels,
            c.prefix_tokens,
            c.patch_bias,
            c.mean,
            c.std,
        )
        self.norm_pre = nn.LayerNorm(c.width, eps=c.norm_eps) if c.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio, eps=c.norm_eps) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.head = nn.Linear(c.width, c.classes) if c.classes else nn.Identity()

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) or (B, T, C, H, W), uint8 or floating -> normalised tokens (B, prefix + patches, width)."""
        x = self.norm_pre(self.embed(pixels))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled tokens (B, width)."""
        tokens = self.tokens(pixels)
        return tokens[:, 0] if self.config.pooling == "class" else tokens[:, self.config.prefix_tokens :].mean(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Class scores (B, classes), or the pooled features where the config has no classes."""
        return self.head(self.features(pixels))  # type: ignore[no-any-return]

    def attention_map(self, pixels: Tensor) -> Tensor:
        """Attention of the last block from the pooled token (the mean over patches where there is none) to the patches, averaged over heads: (B, patches)."""
        x = self.norm_pre(self.embed(pixels))
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1]
        weights = last.attention.weights(last.norm1(x)).mean(1)  # type: ignore[union-attr,operator]
        prefix = self.config.prefix_tokens
        rows = weights[:, 0] if self.config.pooling == "class" else weights[:, prefix:].mean(1)
        return rows[:, prefix:]  # type: ignore[no-any-return]
