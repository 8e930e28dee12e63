"""What a task hands back: numbers and texts for the terminal, and the files it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vlmkernels.demo.training import History

__all__ = ["CREDIT", "Result", "history_facts"]

CREDIT = "Drawings: OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0."


@dataclass
class Result:
    """`lines` are printed in order; `numbers` are what they say, as data."""

    lines: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def history_facts(history: History, unit: str = "images", models: int = 1) -> list[tuple[str, str]]:
    """Loss, speed and shares as rows of a table; seconds and items of the history are of all `models`, loss and shares of one."""
    if not history.losses:
        return []
    steps = f"{models} models of {len(history.losses)} steps" if models > 1 else f"{len(history.losses)} steps"
    shares = sorted(history.shares.items(), key=lambda item: -item[1])
    return [
        ("training", f"{steps} in {history.seconds:.1f} s, {history.rate:.0f} {unit}/s"),
        (
            "loss",
            f"{history.losses[0]:.3f} at the first step, {sum(history.losses[-20:]) / len(history.losses[-20:]):.3f} over the last ones",
        ),
        ("share of time", ", ".join(f"{name} {share:.0%}" for name, share in shares)),
    ]
