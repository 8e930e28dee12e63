"""Comparing captions with drawings: features of several models side by side, averaged over views, and scores that are fair to both sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.demo.augment import augment
from vlmkernels.models.clip import CLIP

__all__ = ["caption_features", "closest", "drawing_features", "fair_scores"]


def _side_by_side(features: Sequence[Tensor]) -> Tensor:
    """Unit vectors whose products are the means of the models' own."""
    return torch.cat(list(features), -1) / len(features) ** 0.5


@torch.no_grad()
def drawing_features(models: Sequence[CLIP], images: Tensor, views: int, color: float, seed: int) -> Tensor:
    """(N, embedding of all models) of uint8 images: of each model the mean direction of the image and `views` augmented views of it."""
    generator = torch.Generator().manual_seed(seed)
    sums = [model.encode_image(images) for model in models]
    for _ in range(views):
        view = augment(images, generator, color=color)
        for total, model in zip(sums, models, strict=True):
            total += model.encode_image(view)
    return _side_by_side([F.normalize(total, dim=-1) for total in sums])


@torch.no_grad()
def caption_features(models: Sequence[CLIP], tokens: Tensor) -> Tensor:
    """(N, embedding of all models)."""
    return _side_by_side([model.encode_text(tokens) for model in models])


def closest(features: Tensor, others: Tensor, neighbours: int) -> Tensor:
    """(N,) mean similarity of each row with its nearest `neighbours` among the others: large for what is close to everything."""
    return (features @ others.mT).topk(neighbours).values.mean(1)


def fair_scores(captions: Tensor, drawings: Tensor, caption_hubs: Tensor, drawing_hubs: Tensor) -> Tensor:
    """(captions, drawings): 2 <c, d> - hub(c) - hub(d), cross-domain similarity local scaling (Conneau et al., 2018), with neighbours among the training pairs only."""
    return 2 * captions @ drawings.mT - caption_hubs[:, None] - drawing_hubs
