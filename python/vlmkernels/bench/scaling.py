"""Cost against size: sweeps over the sequence length, the batch and the number of threads."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from vlmkernels.bench.attention import attention_workloads, dense_workload
from vlmkernels.bench.contrastive import contrastive_workload, contrastive_workloads
from vlmkernels.bench.patch_embed import patch_workload, patch_workloads
from vlmkernels.bench.workload import Workload

__all__ = ["AXES", "doublings", "series_of", "sweep_workloads"]

AXES = ("S", "B", "threads")

_LENGTHS = (128, 256, 512, 1024, 2048, 4096)
_BATCHES = (1, 2, 4, 8, 16)
_LOSS_BATCHES = (512, 1024, 2048, 4096)
_THREADED = ("clip-b16", "clip-l14-336", "vit-b16-224", "clip-1k")


def _point(workload: Workload, series: str, axis: str, value: int) -> Workload:
    return replace(workload, sweep={"series": series, "axis": axis, "value": value})


def sweep_workloads(axis: str | None = None) -> list[Workload]:
    """The points of the curves over S and B, each a workload with a name of its own; over threads the named workloads that are run with several."""
    found = []
    if axis in (None, "S"):
        for s in _LENGTHS:
            shape = {"name": f"sweep-attention-s{s}", "B": 1, "Hq": 8, "Hk": 8, "Sq": s, "Sk": s, "D": 64}
            found.append(_point(dense_workload(shape), "attention, 1 x 8 heads x 64", "S", s))
    if axis in (None, "B"):
        for b in _BATCHES:
            shape = {"name": f"sweep-attention-b{b}", "B": b, "Hq": 12, "Hk": 12, "Sq": 197, "Sk": 197, "D": 64}
            found.append(_point(dense_workload(shape), "attention, 12 heads x 197 x 64", "B", b))
            patches = {"name": f"sweep-patch-b{b}", "B": b, "C": 3, "T": 1, "H": 224, "W": 224, "P": [1, 16, 16], "E": 768, "bias": True, "prefix": 1, "position": True}  # fmt: skip
            found.append(_point(patch_workload(patches), "patch embedding, 224 x 224 to 197 x 768", "B", b))
        for loss in ("info_nce", "sigmoid"):
            for b in _LOSS_BATCHES:
                shape = {"name": f"sweep-{loss.replace('_', '-')}-b{b}", "loss": loss, "B": b, "D": 512}
                found.append(_point(contrastive_workload(shape), f"{loss} loss, D 512", "B", b))
    if axis == "threads":
        named = [*attention_workloads(), *patch_workloads(), *contrastive_workloads()]
        found += [_point(w, w.name, "threads", 0) for w in named if w.name in _THREADED]
    return found


def series_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str, str, int], list[tuple[int, dict[str, Any]]]]:
    """(series, axis, pass, dtype, threads) -> (value, row) in rising order; threads is 0 for curves over threads."""
    found: dict[tuple[str, str, str, str, int], list[tuple[int, dict[str, Any]]]] = {}
    for row in rows:
        if "sweep" not in row or "times" not in row["contenders"]["ours"]:
            continue
        sweep = row["sweep"]
        over_threads = sweep["axis"] == "threads"
        key = (sweep["series"], sweep["axis"], row["pass"], row["dtype"], 0 if over_threads else row["threads"])
        found.setdefault(key, []).append((row["threads"] if over_threads else sweep["value"], row))
    return {key: sorted(points, key=lambda point: point[0]) for key, points in found.items()}


def doublings(points: list[tuple[int, dict[str, Any]]], contender: str = "ours") -> list[tuple[int, float]]:
    """(2 x, t(2 x) / t(x)) for neighbouring points whose sizes differ by a factor of 2."""
    times = [(value, row["contenders"].get(contender, {}).get("times")) for value, row in points]
    return [
        (after, later["median"] / earlier["median"])
        for (before, earlier), (after, later) in itertools.pairwise(times)
        if earlier and later and after == 2 * before
    ]


def scaling_lines(rows: list[dict[str, Any]]) -> list[str]:
    """What doubling a size costs, a line a curve."""
    lines = []
    for (series, axis, run_pass, dtype, threads), points in series_of(rows).items():
        steps = ", ".join(f"{value}: {ratio:.2f}" for value, ratio in doublings(points))
        where = f"{run_pass}, {dtype}" + (f", {threads} thread{'s' if threads > 1 else ''}" if threads else "")
        lines.append(f"{series} ({where}), time x when {axis} doubles to  {steps or 'no two sizes'}")
    return lines
