"""Comparing captions with drawings: features of several models side by side, averaged over views, and scores that are fair to both sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.demo.augment import augment
from vlmkernels.models.clip import CLIP
from vlmkernels.models.tokenizer import Tokenizer

__all__ = ["caption_features", "closest", "drawing_features", "fair_scores", "vocabulary_of", "words_in"]

#: Words that no drawing shows.
_GLUE = ("a", "and", "for", "in", "of", "on", "the", "with")
_CHUNK = 128  # images encoded at a time: their activations stay in the cache, which halves the time of all at once


def words_in(tokens: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Which of the token ids (N, S) are known words that a drawing can show."""
    glue = torch.tensor([tokenizer.ids(word)[1] for word in _GLUE])
    return (tokens >= tokenizer.first_word) & ~torch.isin(tokens, glue)


def vocabulary_of(tokenizer: Tokenizer) -> Tensor:
    """Token ids (V, 3) of every word as a caption of its own."""
    words = torch.arange(tokenizer.first_word, len(tokenizer))
    return torch.stack([torch.full_like(words, tokenizer.start), words, torch.full_like(words, tokenizer.end)], 1)


def _side_by_side(features: Sequence[Tensor]) -> Tensor:
    """Unit vectors whose products are the means of the models' own."""
    return torch.cat(list(features), -1) / len(features) ** 0.5


@torch.no_grad()
def drawing_features(models: Sequence[CLIP], images: Tensor, views: int, color: float, seed: int) -> Tensor:
    """(N, embedding of all models) of uint8 images: of each model the mean direction of the image and `views` augmented views of it."""
    generator = torch.Generator().manual_seed(seed)
    features = []
    for chunk in images.split(_CHUNK):
        seen = [chunk, *(augment(chunk, generator, color=color) for _ in range(views))]
        sums = [torch.stack([model.encode_image(view) for view in seen]).sum(0) for model in models]
        features.append(_side_by_side([F.normalize(total, dim=-1) for total in sums]))
    return torch.cat(features)


@torch.no_grad()
def caption_features(models: Sequence[CLIP], tokenizer: Tokenizer, captions: Sequence[str], context: int) -> Tensor:
    """(N, embedding of all models): of each model the mean direction of the caption and of the mean of its words, both of which training compares images with."""
    tokens, vocabulary = tokenizer(captions, context), vocabulary_of(tokenizer)
    rows, columns = words_in(tokens, tokenizer).nonzero(as_tuple=True)
    counts = torch.zeros(len(tokens), len(vocabulary))
    counts.index_put_((rows, tokens[rows, columns] - tokenizer.first_word), torch.ones(len(rows)), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    return _side_by_side(
        [F.normalize(model.encode_text(tokens) + shares @ model.encode_text(vocabulary), dim=-1) for model in models]
    )


def closest(features: Tensor, others: Tensor, neighbours: int) -> Tensor:
    """(N,) mean similarity of each row with its nearest `neighbours` among the others: large for what is close to everything."""
    return (features @ others.mT).topk(neighbours).values.mean(1)


def fair_scores(captions: Tensor, drawings: Tensor, caption_hubs: Tensor, drawing_hubs: Tensor) -> Tensor:
    """(captions, drawings): 2 <c, d> - hub(c) - hub(d), cross-domain similarity local scaling (Conneau et al., 2018), with neighbours among the training pairs only."""
    return 2 * captions @ drawings.mT - caption_hubs[:, None] - drawing_hubs
