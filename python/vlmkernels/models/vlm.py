"""A vision-language model: an image encoder fused into a decoder-only language model.

`fusion="cross_attention"`: gated cross-attention layers between the decoder's layers, as Llama 3.2 Vision (Alayrac et al., "Flamingo" (2022), had the idea).
`fusion="embedding"`: image tokens take the places of placeholders in the text sequence, as in Liu et al., "Visual instruction tuning" (LLaVA, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vlmkernels.models.cache import Cache
from vlmkernels.models.language import CrossAttentionLayer, DecoderLayer, ImageView, LanguageModelConfig, rotary
from vlmkernels.models.pretrained import Config, PretrainedModel
from vlmkernels.models.sampling import choose_next
from vlmkernels.models.vit import VisionTransformer, VisionTransformerConfig

__all__ = ["VisionLanguageModel", "VisionLanguageModelConfig"]


@dataclass
class VisionLanguageModelConfig(Config):
    """`row_mask` says what a text row that sees no image gets from a cross-attention layer: nothing ("meta"), or, as transformers has it ("hf"), the attention over
    all image tokens, with the MLP masked."""

    vision: VisionTransformerConfig = field(default_factory=VisionTransformerConfig)
    text: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    fusion: Literal["cross_attention", "embedding"] = "cross_attention"
    row_mask: Literal["meta", "hf"] = "meta"
    image_token: int = 4
    pad_token: int = 0
    end_token: int = 2

    def __post_init__(self) -> None:
        if self.fusion not in ("cross_attention", "embedding"):
            raise ValueError(f'fusion is {self.fusion!r}; use "cross_attention" or "embedding"')
        if self.row_mask not in ("meta", "hf"):
            raise ValueError(f'row_mask is {self.row_mask!r}; use "meta" or "hf"')
        if self.fusion == "embedding" and self.text.cross_attention_layers:
            raise ValueError('fusion is "embedding" and text has cross_attention_layers; set them to ()')


class VisionLanguageModel(PretrainedModel):
    """Image encoder, projector, decoder. Text positions see the images whose image token stands at or before them."""

    config_class = VisionLanguageModelConfig

    def __init__(self, config: VisionLanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        text = config.text
        self.vision = VisionTransformer(config.vision)
        self.projector: nn.Module = nn.Linear(config.vision.width, text.width)
        if config.fusion == "embedding":
            self.projector = nn.Sequential(self.projector, nn.GELU(), nn.Linear(text.width, text.width))
        self.embed_tokens = nn.Embedding(text.vocabulary, text.width)
        self.layers = nn.ModuleList(
            CrossAttentionLayer(text) if n in text.cross_attention_layers else DecoderLayer(text)
            for n in range(text.depth)
        )
        self.norm = nn.RMSNorm(text.width, eps=text.norm_eps)
        self.lm_head = nn.Linear(text.width, text.vocabulary, bias=False)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)

    # --- images ---

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) or (B, images, C, H, W) -> image tokens (B, images, tokens, text width)."""
        if pixels.dim() not in (4, 5):
            raise ValueError(f"pixels has shape {tuple(pixels.shape)}; give (B, C, H, W) or (B, images, C, H, W)")
        if pixels.dim() == 4:
            pixels = pixels[:, None]
        tokens = self.projector(self.vision.tokens(pixels.flatten(0, 1)))
        return tokens.unflatten(0, pixels.shape[:2])  # type: ignore[no-any-return]

    def expand_image_tokens(self, ids: Sequence[int], tokens_per_image: int) -> list[int]:
        """For fusion by embedding: each image token repeated once per token of its image."""
        return [i for i in ids for _ in range(tokens_per_image if i == self.config.image_token else 1)]

    # --- text ---

    def forward(
        self,
        tokens: Tensor,
        pixels: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        cache: Cache | None = None,
        image_tokens: Tensor | None = None,
    ) -> Tensor:
        """Next-token scores (B, S, vocabulary).

        Args:
            tokens: (B, S) ids. With fusion by cross-attention one image token an image marks from where the text sees it; without any, all text sees all images.
            pixels: (B, C, H, W) or (B, images, C, H, W), with the first tokens only: a cache keeps the images. Or `image_tokens`, what encode_images returned.
            valid: (B, S) bool, False at padding (of any place: pad prompts in front to generate).
            cache: filled by this call and continued by the next.
        """
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)} and dtype {tokens.dtype}; give integer ids (B, S)"
            )
        if pixels is not None:
            image_tokens = self.encode_images(pixels)
        if image_tokens is not None and image_tokens.shape[0] != tokens.shape[0]:
            raise ValueError(
                f"pixels are for {image_tokens.shape[0]} rows and tokens for {tokens.shape[0]}; give as many"
            )
        keys_valid, positions = self._positions(tokens, valid, cache)
        x = self.embed_tokens(tokens)
        view = None
        if self.config.fusion == "embedding":
            x = self._place_images(x, tokens, image_tokens)
        else:
            view = self._view(tokens, image_tokens, cache)
        cos, sin = rotary(positions, x.shape[-1] // self.config.text.heads, self.config.text.rope_theta)
        for n, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache.layers[n]
            if isinstance(layer, DecoderLayer):
                x = layer(x, cos, sin, keys_valid, layer_cache)
            elif view is not None:
                x = layer(x, view, layer_cache)
        return self.lm_head(self.norm(x))  # type: ignore[no-any-return]

    def new_cache(self) -> Cache:
        return Cache(len(self.layers))

    def _positions(self, tokens: Tensor, valid: Tensor | None, cache: Cache | None) -> tuple[Tensor | None, Tensor]:
        """Which keys are valid (None for all), and the place of each token among the valid ones."""
        before = None if cache is None else cache.valid
        if valid is None and before is None:
            start = 0
            if cache is not None:
                text_layers = (n for n, layer in enumerate(self.layers) if isinstance(layer, DecoderLayer))
                start = cache.layers[next(text_layers)].length
            return None, torch.arange(start, start + tokens.shape[1], device=tokens.device).expand(tokens.shape)
        now = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
        everything = now if before is None else torch.cat([before, now], dim=1)
        if cache is not None:
            cache.valid = everything
        places = (everything.long().cumsum(1) - 1).clamp_min(0)
        return everything, places[:, -tokens.shape[1] :]

    def _place_images(self, x: Tensor, tokens: Tensor, image_tokens: Tensor | None) -> Tensor:
        places = tokens == self.config.image_token
        if image_tokens is None:
            return x
        count, given = int(places.sum()), image_tokens.shape[0] * image_tokens.shape[1] * image_tokens.shape[2]
        if count != given:
            raise ValueError(
                f"tokens has {count} image tokens and the images have {given}; use expand_image_tokens on each prompt"
            )
        return x.masked_scatter(places[..., None], image_tokens.to(x.dtype))

    def _view(self, tokens: Tensor, image_tokens: Tensor | None, cache: Cache | None) -> ImageView | None:
        """From each token's count of image tokens at or before it to what it sees."""
        images = 0 if cache is None else cache.images
        per_image = 0 if cache is None else cache.tokens_per_image
        if image_tokens is not None:
            images, per_image = image_tokens.shape[1], image_tokens.shape[2]
        if images == 0:
            return None
        seen = (tokens == self.config.image_token).long().cumsum(1)
        if cache is not None and cache.images_seen is not None:
            seen = seen + cache.images_seen[:, None]
        elif not bool((seen[:, -1] > 0).any()):
            seen = torch.full_like(seen, images)  # no markers: everything is seen from the start
        if cache is not None:
            cache.images, cache.tokens_per_image, cache.images_seen = images, per_image, seen[:, -1]
        visible = seen[..., None] > torch.arange(images, device=tokens.device)
        sees = visible.any(-1, keepdim=True)
        row_mask = sees.to(self.lm_head.weight.dtype)
        if self.config.row_mask == "hf":
            visible = visible | ~sees
        flat = None if image_tokens is None else image_tokens.flatten(1, 2)
        return ImageView(flat, visible, per_image, row_mask)

    # --- generation ---

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]] | Tensor,
        pixels: Tensor | None = None,
        *,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Continues each prompt until the end token or `max_new_tokens`; returns the new tokens, the end token left out.

        Prompts may differ in length. `temperature` 0 takes the likeliest token; above it samples, from the `top_k` likeliest and the smallest set of probability
        `top_p` where given. Keys and values of text and images are cached.
        """
        rows = [list(map(int, prompt)) for prompt in prompts]
        if not rows or any(not row for row in rows):
            raise ValueError("prompts is empty or has an empty prompt; give at least one token each")
        if self.config.fusion == "embedding" and pixels is not None:
            image_tokens: Tensor | None = self.encode_images(pixels)
            rows = [self.expand_image_tokens(row, image_tokens.shape[2]) for row in rows]  # type: ignore[union-attr]
        else:
            image_tokens = None if pixels is None else self.encode_images(pixels)
        device = self.lm_head.weight.device
        longest = max(map(len, rows))
        tokens = torch.tensor([[self.config.pad_token] * (longest - len(row)) + row for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        valid = torch.arange(longest, device=device) >= longest - lengths[:, None]
        cache = self.new_cache()
        scores = self(tokens, valid=None if bool(valid.all()) else valid, cache=cache, image_tokens=image_tokens)[:, -1]
        new: list[list[int]] = [[] for _ in rows]
        running = [True] * len(rows)
        for step in range(max_new_tokens):
            chosen = choose_next(scores, temperature, top_k, top_p, generator)
            for n, token in enumerate(chosen.tolist()):
                running[n] = running[n] and token != self.config.end_token
                if running[n]:
                    new[n].append(token)
            if not any(running) or step == max_new_tokens - 1:
                break
            scores = self(chosen[:, None], cache=cache)[:, -1]
        return new
