"""CLIP: an image tower and a causal text tower in one embedding space. Radford et al., "Learning transferable visual models from natural language supervision" (2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vlmkernels.models.layers import Block
from vlmkernels.models.pretrained import Config, PretrainedModel
from vlmkernels.models.vit import VisionTransformer, VisionTransformerConfig
from vlmkernels.ops.contrastive import contrastive_loss

__all__ = ["CLIP", "CLIPConfig", "TextTower", "TextTowerConfig"]


@dataclass
class TextTowerConfig(Config):
    """`context` is the longest sequence of tokens; `pad_token` fills the end of shorter ones. `pooling` takes the last token, as CLIP does, or the mean over all."""

    vocabulary: int = 49408
    context: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_ratio: float = 4.0
    pad_token: int = 0
    pooling: Literal["last", "mean"] = "last"
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width // self.heads % 8:
            raise ValueError(
                f"width {self.width} over heads {self.heads} must give a head dimension that is a multiple of 8"
            )
        if self.pooling not in ("last", "mean"):
            raise ValueError(f'pooling is {self.pooling!r}; use "last" or "mean"')


@dataclass
class CLIPConfig(Config):
    """Both towers and the shared embedding. `max_logit_scale` bounds the learned temperature (the linear multiplier)."""

    vision: VisionTransformerConfig = field(default_factory=VisionTransformerConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    embedding: int = 512
    initial_logit_scale: float = 1 / 0.07
    max_logit_scale: float = 100.0


class TextTower(nn.Module):
    """Token and position embeddings, causal pre-norm blocks; a caption's feature is that of its last token, or their mean."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocabulary, c.width)
        self.position = nn.Parameter(torch.empty(c.context, c.width))
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, causal=True, eps=c.norm_eps) for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S) token ids, padded at the end -> features (B, width). Causal attention keeps the padding out of them."""
        if tokens.shape[1] > self.config.context:
            raise ValueError(
                f"tokens has length {tokens.shape[1]}; the model's context is {self.config.context}: truncate"
            )
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        seen = tokens != self.config.pad_token
        if self.config.pooling == "mean":
            pooled = (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True).clamp_min(1)
        else:
            pooled = x[torch.arange(len(x), device=x.device), seen.sum(1).clamp_min(1) - 1]
        return self.norm(pooled)  # type: ignore[no-any-return]


class CLIP(PretrainedModel):
    """Image and text encoders with projections to unit vectors and a learned temperature."""

    config_class = CLIPConfig

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTransformer(config.vision)
        self.text = TextTower(config.text)
        self.image_projection = nn.Linear(config.vision.width, config.embedding, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding, bias=False)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.initial_logit_scale)))

    @property
    def logit_scale(self) -> Tensor:
        """The linear multiplier of cosines."""
        return self.log_logit_scale.exp()

    def clamp_logit_scale(self) -> None:
        """Keeps the temperature in [1, max_logit_scale]; call it behind each optimiser step."""
        with torch.no_grad():
            self.log_logit_scale.clamp_(0.0, math.log(self.config.max_logit_scale))

    def image_features(self, pixels: Tensor) -> Tensor:
        """Projected, not normalised: (B, embedding)."""
        return self.image_projection(self.vision.features(pixels))  # type: ignore[no-any-return]

    def text_features(self, tokens: Tensor) -> Tensor:
        """Projected, not normalised: (B, embedding)."""
        return self.text_projection(self.text(tokens))  # type: ignore[no-any-return]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W), uint8 or floating -> unit vectors (B, embedding)."""
        return nn.functional.normalize(self.image_features(pixels), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, S) token ids -> unit vectors (B, embedding)."""
        return nn.functional.normalize(self.text_features(tokens), dim=-1)

    def forward(
        self, pixels: Tensor, tokens: Tensor, *, groups: Tensor | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """The symmetric contrastive loss of a batch of pairs; pairs of equal `groups` id (B,) count as positives of each other."""
        loss: Tensor = contrastive_loss(
            self.image_features(pixels),
            self.text_features(tokens),
            self.logit_scale,
            labels="diagonal" if groups is None else groups,
            label_smoothing=label_smoothing,
            normalize=True,
        )
        return loss

    @torch.no_grad()
    def zero_shot(self, pixels: Tensor, class_tokens: Tensor) -> Tensor:
        """Probabilities (B, classes) of the captions `class_tokens` (classes, S) for each image."""
        return (self.logit_scale * self.encode_image(pixels) @ self.encode_text(class_tokens).mT).softmax(-1)
