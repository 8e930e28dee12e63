"""Keys and values kept between decoding steps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Cache", "LayerCache"]


class LayerCache:
    """Keys and values of one layer: a growing text (`append`) or an image that stays (`hold`). Buffers grow by doubling, so a step copies only itself."""

    def __init__(self) -> None:
        self._key: Tensor | None = None
        self._value: Tensor | None = None
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds (B, H, S, D) behind what is there; returns views of everything."""
        end = self.length + key.shape[2]
        if self._key is None or self._value is None or end > self._key.shape[2]:
            self._key, self._value = self._grown(self._key, key, end), self._grown(self._value, value, end)
        self._key[:, :, self.length : end] = key
        self._value[:, :, self.length : end] = value
        self.length = end
        return self._key[:, :, :end], self._value[:, :, :end]

    def _grown(self, old: Tensor | None, new: Tensor, end: int) -> Tensor:
        batch, heads, _, head_dim = new.shape
        room = torch.empty(batch, heads, max(2 * end, 64), head_dim, dtype=new.dtype, device=new.device)
        if old is not None:
            room[:, :, : self.length] = old[:, :, : self.length]
        return room

    def hold(self, key: Tensor, value: Tensor) -> None:
        self._key, self._value, self.length = key, value, key.shape[2]

    def held(self) -> tuple[Tensor, Tensor]:
        if self._key is None or self._value is None:
            raise ValueError("the cache holds no image; give pixels with the first tokens")
        return self._key, self._value


class Cache:
    """One LayerCache a layer, which text positions are valid (B, length), and how many images each row of the batch has seen (B,)."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.valid: Tensor | None = None
        self.images_seen: Tensor | None = None
        self.images = 0
        self.tokens_per_image = 0
