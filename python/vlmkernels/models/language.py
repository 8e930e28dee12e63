"""A decoder-only language model with image cross-attention, as in Llama 3.2 Vision: RMSNorm, rotary positions, grouped heads, SwiGLU.

Grattafiori et al., "The Llama 3 herd of models" (2024), section 7. Module names are those of Mllama's text model in transformers, so that its layers' weights load by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmkernels.models.cache import LayerCache
from vlmkernels.models.pretrained import Config
from vlmkernels.ops.attention import attention, cross_attention

__all__ = ["CrossAttentionLayer", "DecoderLayer", "ImageView", "LanguageModelConfig", "rotary"]


@dataclass
class LanguageModelConfig(Config):
    """`cross_attention_layers` are the indices, among the `depth` layers, of those that attend to the image instead of the text."""

    vocabulary: int = 128_264
    width: int = 4096
    depth: int = 40
    heads: int = 32
    kv_heads: int = 8
    intermediate: int = 14_336
    cross_attention_layers: tuple[int, ...] = (3, 8, 13, 18, 23, 28, 33, 38)
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width // self.heads % 8:
            raise ValueError(
                f"width {self.width} over heads {self.heads} must give a head dimension that is a multiple of 8"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if any(not 0 <= n < self.depth for n in self.cross_attention_layers):
            raise ValueError(f"cross_attention_layers {self.cross_attention_layers} must lie in [0, {self.depth})")


@dataclass
class ImageView:
    """What the text sees of the images: their tokens (None once the caches hold keys and values), `visible` (B, S, n_images) bool, tokens per image, and
    `row_mask` (B, S, 1), 0 for text rows that see no image."""

    tokens: Tensor | None
    visible: Tensor | None
    tokens_per_image: int
    row_mask: Tensor | None


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin (B, S, head_dim) of the angles position * theta^(-2i / head_dim), the halves repeated. Su et al., "RoFormer" (2021)."""
    rates = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    angles = positions[..., None].float() * rates
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class _Projections(nn.Module):
    """Query, key, value and output projections with grouped heads."""

    def __init__(self, config: LanguageModelConfig, key_width: int) -> None:
        super().__init__()
        self.head_dim = config.width // config.heads
        kv_width = config.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(key_width, kv_width, bias=False)
        self.v_proj = nn.Linear(key_width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, S, H D) -> (B, H, S, D), a view."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class SelfAttention(_Projections):
    """Causal self-attention with rotary positions and a cache of keys and values."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__(config, config.width)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, valid: Tensor | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """x (B, S, width); cos, sin (B, S, D); valid (B, keys) False at padding, keys including the cached ones."""
        cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
        query = _rotate(self._heads(self.q_proj(x)), cos, sin)
        key = _rotate(self._heads(self.k_proj(x)), cos, sin)
        value = self._heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.append(key, value)
        out = attention(query, key, value, mask=valid, causal="bottom_right")
        return self.o_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class CrossAttention(_Projections):
    """Queries from the text, keys and values from the image tokens, RMSNorm over each head of query and key, no positions."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__(config, config.width)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps)
        self.k_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps)

    def keys_and_values(self, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.k_norm(self._heads(self.k_proj(image_tokens))), self._heads(self.v_proj(image_tokens))

    def forward(self, x: Tensor, image: ImageView, cache: LayerCache | None = None) -> Tensor:
        query = self.q_norm(self._heads(self.q_proj(x)))
        if image.tokens is not None:
            key, value = self.keys_and_values(image.tokens)
            if cache is not None:
                cache.hold(key, value)
        elif cache is not None:
            key, value = cache.held()
        else:
            raise ValueError(
                "image has no tokens and there is no cache that holds them; give pixels with the first tokens"
            )
        tokens_per_tile = None if image.visible is None else image.tokens_per_image
        out = cross_attention(query, key, value, visible=image.visible, tokens_per_tile=tokens_per_tile)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def weights(self, x: Tensor, image_tokens: Tensor) -> Tensor:
        """Attention probabilities (B, heads, S, image tokens), for pictures: the kernels never make this matrix."""
        query = self.q_norm(self._heads(self.q_proj(x)))
        key, _ = self.keys_and_values(image_tokens)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        return (query @ key.mT / self.head_dim**0.5).softmax(-1)


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMLP(config.width, config.intermediate)
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, valid: Tensor | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, valid, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class CrossAttentionLayer(nn.Module):
    """x + tanh(gate) cross_attention(norm(x)), then x + tanh(gate) mlp(norm(x)); the gates start closed, so a language model starts undisturbed."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.cross_attn = CrossAttention(config)
        self.mlp = GatedMLP(config.width, config.intermediate)
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.cross_attn_attn_gate = nn.Parameter(torch.zeros(1))
        self.cross_attn_mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, image: ImageView, cache: LayerCache | None = None) -> Tensor:
        x = x + self.cross_attn_attn_gate.tanh() * self.cross_attn(self.input_layernorm(x), image, cache)
        hidden = self.mlp(self.post_attention_layernorm(x))
        if image.row_mask is not None:
            hidden = image.row_mask * hidden
        return x + self.cross_attn_mlp_gate.tanh() * hidden  # type: ignore[no-any-return]
