"""The named shapes of shapes.json."""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import json
from typing import Any

__all__ = ["Shape", "load_shapes", "sequence_lengths"]

Shape = dict[str, Any]


@functools.cache
def load_shapes() -> dict[str, list[Shape]]:
    """Operation -> shapes, each with a name that is its own among them."""
    text = (importlib.resources.files("vlmkernels.bench") / "shapes.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    del found["about"]
    return found


def sequence_lengths(shape: Shape) -> list[int]:
    """Lengths of packed sequences."""
    tokens = shape["tokens"]
    lengths = itertools.cycle(range(tokens["from"], tokens["to"] + 1, tokens["step"]))
    return list(itertools.islice(lengths, shape["sequences"]))
