"""Times of several contenders that take turns, call by call, so that all of them see the same machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Settings", "Times", "interleaved"]


@dataclass(frozen=True)
class Settings:
    """How long to measure. At least `samples` of every contender, more until `seconds` have passed (at most `most`); where a round of calls takes more than
    `slow_round` seconds, as few as `slow_samples`. Calls shorter than `shortest` seconds are repeated within a sample."""

    samples: int = 10
    seconds: float = 0.5
    most: int = 200
    slow_round: float = 4.0
    slow_samples: int = 3
    shortest: float = 200e-6


@dataclass(frozen=True)
class Times:
    """Seconds a call over several samples."""

    median: float
    q1: float
    q3: float
    best: float
    samples: int
    calls_per_sample: int

    @classmethod
    def of(cls, seconds: list[float], calls_per_sample: int = 1) -> Times:
        ordered = sorted(seconds)
        if len(ordered) == 1:
            q1 = q3 = ordered[0]
        else:
            q1, _, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
        return cls(statistics.median(ordered), q1, q3, ordered[0], len(ordered), calls_per_sample)


def _repeat(call: Callable[[], Any], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def interleaved(calls: dict[str, Callable[[], Any]], settings: Settings) -> dict[str, Times]:
    """Every round times each contender once; the first round warms up and shows how many samples there is time for."""
    first = {name: _repeat(call, 1) for name, call in calls.items()}
    # The first call may have paid for page faults and lazy set-up; a second one that is short tells.
    first = {name: min(first[name], _repeat(call, 1)) if first[name] < 1.0 else first[name] for name, call in calls.items()}  # fmt: skip
    repeats = {name: max(1, math.ceil(settings.shortest / max(once, 1e-9))) for name, once in first.items()}
    expected_round = sum(first[name] * repeats[name] for name in calls)
    if expected_round > settings.slow_round:
        affordable = int(settings.slow_round * settings.samples / expected_round)
        rounds = min(settings.samples, max(settings.slow_samples, affordable))
    else:
        rounds = max(settings.samples, min(settings.most, int(settings.seconds / max(expected_round, 1e-9))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_repeat(call, repeats[name]))
    return {name: Times.of(seconds, repeats[name]) for name, seconds in taken.items()}
