"""Results against float64, by the accuracy rule of :mod:`vlmkernels.verify.rule`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmkernels.verify.rule import compare

__all__ = ["Match", "check_match"]


@dataclass(frozen=True)
class Match:
    """`share` is the largest error as a share of the allowed one (1 is the limit), `relative` the largest |found - exact| / |exact| of an output in the 2-norm,
    `gradients` the same over gradients of features alone."""

    passed: bool
    share: float
    worst: str
    relative: float
    gradients: float | None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def _relative(found: Tensor, exact: Tensor) -> float:
    norm = exact.norm().item()
    distance = (found.double() - exact).norm().item()
    return distance / norm if norm else distance


def check_match(
    outputs: tuple[str, ...],
    found: tuple[Tensor, ...],
    yardstick: tuple[Tensor, ...],
    exact: tuple[Tensor, ...],
) -> Match:
    """`yardstick` is PyTorch's result in the same dtype, whose error sets what is allowed."""
    with torch.no_grad():
        findings = [
            compare(name, f, y, e, gradient=name.startswith("grad "))
            for name, f, y, e in zip(outputs, found, yardstick, exact, strict=True)
        ]
        relative = {name: _relative(f, e) for name, f, e in zip(outputs, found, exact, strict=True)}
    shares = [f.error / f.allowed if f.allowed else float(f.error > 0) for f in findings]
    worst = max(range(len(shares)), key=shares.__getitem__)
    features = [value for name, value in relative.items() if name in ("grad image", "grad text")]
    return Match(
        passed=all(f.passed for f in findings),
        share=shares[worst],
        worst=outputs[worst],
        relative=max(relative.values()),
        gradients=max(features) if features else None,
    )
