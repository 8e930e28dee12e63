"""A small tokenizer on Hugging Face's `tokenizers`: whole words or byte-level BPE, learned from captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

__all__ = ["Tokenizer"]

_SPECIAL = ["<pad>", "<start>", "<end>", "<unknown>", "<image>"]


class Tokenizer:
    """Text to padded token ids and back. Special tokens: <pad> 0, <start> 1, <end> 2, <unknown> 3, <image> 4."""

    pad, start, end, unknown, image = range(5)
    first_word = len(_SPECIAL)

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend

    @classmethod
    def train(
        cls, captions: Iterable[str], kind: Literal["word", "bpe"] = "word", vocabulary: int = 30_000
    ) -> Tokenizer:
        """Learns a vocabulary of at most `vocabulary` words, or of byte pairs."""
        if kind == "word":
            backend = tokenizers.Tokenizer(models.WordLevel(unk_token="<unknown>"))
            backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
            backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\w'\x{2019}]+"), "removed")
            trainer: Any = trainers.WordLevelTrainer(
                vocab_size=vocabulary, special_tokens=_SPECIAL, show_progress=False
            )
        elif kind == "bpe":
            backend = tokenizers.Tokenizer(models.BPE())
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            backend.decoder = tokenizers.decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=vocabulary,
                special_tokens=_SPECIAL,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
        else:
            raise ValueError(f'kind is {kind!r}; use "word" or "bpe"')
        backend.train_from_iterator(captions, trainer)
        return cls(backend)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        return cls(tokenizers.Tokenizer.from_file(str(path)))

    def save(self, path: str | Path) -> None:
        self.backend.save(str(path))

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size())

    def ids(self, text: str, *, close: bool = True) -> list[int]:
        """<start>, the text's tokens and, unless `close` is False, <end>."""
        return [self.start, *self.backend.encode(text).ids, *([self.end] if close else [])]

    def __call__(self, texts: Sequence[str], context: int | None = None) -> Tensor:
        """Token ids (len(texts), longest), padded at the end; with `context` padded or truncated to that length, keeping <end>."""
        rows = [self.ids(text) for text in texts]
        if context is not None:
            rows = [row if len(row) <= context else [*row[: context - 1], self.end] for row in rows]
        length = context or max((len(row) for row in rows), default=0)
        padded = [row + [self.pad] * (length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).view(len(rows), length)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of the tokens, special ones left out."""
        plain = [int(i) for i in ids if int(i) >= self.first_word or int(i) == self.unknown]
        return str(self.backend.decode(plain, skip_special_tokens=False))
