"""The charts of a result: roofline, speed against sequence length, memory against batch, cost against size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlmkernels.bench.plots import Chart, Series
from vlmkernels.bench.scaling import series_of
from vlmkernels.bench.words import threads_words

__all__ = ["length_charts", "memory_charts", "roofline_charts", "scaling_charts"]

Row = dict[str, Any]

_COLOURS = {"attention": 0, "patch_embed": 1, "contrastive": 2, "model": 3}


def _groups(result: dict[str, Any], *fields: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in result["rows"]:
        found.setdefault(tuple(row[f] for f in fields), []).append(row)
    yield from found.items()


def roofline_charts(result: dict[str, Any]) -> list[Chart]:
    """FLOP/s against FLOP per byte; a point a workload, under the ceilings of arithmetic and of reading."""
    charts = []
    for (dtype, threads), rows in _groups(result, "dtype", "threads"):
        points: dict[str, list[tuple[float, float, str]]] = {}
        for row in rows:
            rate = row["contenders"]["ours"].get("flops_per_second")
            if rate and row.get("bytes") and "sweep" not in row:
                name = f"{row['workload']} {row['pass']}"
                points.setdefault(row["operation"], []).append((row["flops"] / row["bytes"], rate / 1e9, name))
        if not points or str(threads) not in result["ceilings"]:
            continue
        ceilings = result["ceilings"][str(threads)]
        roofs = [("FMA ceiling", ceilings["multiply_add"], 6)]
        if dtype == "bfloat16":
            pairs = (
                ("bf16 dot ceiling", ceilings["bf16_dot"], 7),
                ("bf16 tiles ceiling", ceilings.get("bf16_tiles"), 8),
            )
            roofs += [(label, roof, colour) for label, roof, colour in pairs if roof]
        lowest = min(x for found in points.values() for x, _, _ in found)
        highest = max(x for found in points.values() for x, _, _ in found)
        series = []
        for label, roof, colour in roofs:
            ridge = roof / ceilings["read"]
            left, right = min(lowest, ridge / 2), max(highest, ridge * 4)
            line = [(left, left * ceilings["read"] / 1e9), (ridge, roof / 1e9), (right, roof / 1e9)]
            series.append(Series(label, line, colour, dots=False))
        for operation, found in points.items():
            series.append(
                Series(operation, [(x, y) for x, y, _ in found], _COLOURS.get(operation, 4), line=False, names=[name for _, _, name in found])
            )  # fmt: skip
        charts.append(Chart(f"{dtype}, {threads_words(threads)}", "FLOP per byte of input and output", "GFLOP/s", series, 10, 10))  # fmt: skip
    return charts


def length_charts(result: dict[str, Any]) -> list[Chart]:
    """GFLOP/s of attention against the number of keys, ours and the first peers."""
    charts = []
    for (run_pass, dtype, threads), rows in _groups(result, "pass", "dtype", "threads"):
        curves: dict[str, list[tuple[float, float, str]]] = {}
        for row in rows:
            shape = row["shape"]
            if row["operation"] != "attention" or "Sq" not in shape or row["bound"] != "compute":
                continue
            for name, found in row["contenders"].items():
                if found["kind"] != "part" and found.get("flops_per_second"):
                    curves.setdefault(name, []).append((shape["Sk"], found["flops_per_second"] / 1e9, row["workload"]))
        if len({x for found in curves.values() for x, _, _ in found}) < 2:
            continue
        series = [
            Series(name, [(x, y) for x, y, _ in sorted(found)], i, line=False, names=[n for _, _, n in sorted(found)])
            for i, (name, found) in enumerate(curves.items())
        ]
        ceiling = next((row["ceiling"] for row in rows if row.get("ceiling") and row["bound"] == "compute"), None)
        extent = [min(x for s in series for x, _ in s.points), max(x for s in series for x, _ in s.points)]
        if ceiling:
            series.append(Series(f"{ceiling['name']} ceiling", [(x, ceiling["value"] / 1e9) for x in extent], 6, dots=False, dashed=True))  # fmt: skip
        charts.append(Chart(f"{run_pass}, {dtype}, {threads_words(threads)}", "keys", "GFLOP/s", series, x_log=2))
    return charts


def memory_charts(result: dict[str, Any]) -> list[Chart]:
    """Peak extra memory of the losses against the batch."""
    charts = []
    losses = [row for row in result["rows"] if row["operation"] == "contrastive" and row["pass"] == "forward+backward"]
    for loss in dict.fromkeys(row["shape"]["loss"] for row in losses):
        for dtype in dict.fromkeys(row["dtype"] for row in losses):
            curves: dict[str, dict[float, float]] = {}
            for row in losses:
                if row["shape"]["loss"] != loss or row["dtype"] != dtype:
                    continue
                for name, found in row["contenders"].items():
                    if found.get("memory_bytes"):
                        curves.setdefault(name, {})[row["shape"]["B"]] = found["memory_bytes"] / 2**20
            if len({x for found in curves.values() for x in found}) < 2:
                continue
            series = [Series(name, sorted(found.items()), i) for i, (name, found) in enumerate(curves.items())]
            charts.append(Chart(f"{loss}, {dtype}", "batch", "MiB beyond the inputs", series, 2, 2))
    return charts


def scaling_charts(result: dict[str, Any]) -> list[Chart]:
    """Time against size, ours and the peers, and the line of the growth that arithmetic asks for."""
    charts = []
    for (name, axis, run_pass, dtype, threads), points in series_of(result["rows"]).items():
        if len(points) < 2:
            continue
        contenders = [c for c, found in points[0][1]["contenders"].items() if found["kind"] != "part"]
        series = []
        for i, contender in enumerate(contenders):
            times = [(value, row["contenders"].get(contender, {}).get("times")) for value, row in points]
            curve = [(float(value), t["median"] * 1e3) for value, t in times if t]
            if curve:
                series.append(Series(contender, curve, i))
        power = -1 if axis == "threads" else 2 if axis == "S" or "loss" in name else 1
        last, time = series[0].points[-1]
        ideal = [(float(value), time * (value / last) ** power) for value, _ in points]
        series.append(Series(f"{axis}^{power}", ideal, 6, dots=False, dashed=True))
        where = f", {threads_words(threads)}" if threads else ""
        charts.append(Chart(f"{name}; {run_pass}, {dtype}{where}", axis, "ms", series, 2, 10))
    return charts
