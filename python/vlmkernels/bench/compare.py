"""Two results side by side: what changed beyond the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vlmkernels.bench.words import duration, threads_words

__all__ = ["Change", "compare_lines", "compare_results"]

#: operation, workload, pass, dtype, threads, and the axis of a scaling curve the row belongs to
Key = tuple[str, str, str, str, int, str]


@dataclass(frozen=True)
class Change:
    """One row in both results. `verdict`: "faster" or "slower" where the quartiles of ours do not overlap, "same" where they do, or what keeps them from being compared.
    `ratio` is the new time over the old one, `peer_ratio` the same for the first peer both have: what the machine alone did."""

    key: Key
    verdict: str
    ratio: float | None = None
    peer_ratio: float | None = None
    old: float | None = None
    new: float | None = None


def _key(row: dict[str, Any]) -> Key:
    axis = row["sweep"]["axis"] if "sweep" in row else ""
    return row["operation"], row["workload"], row["pass"], row["dtype"], row["threads"], axis


def _change(key: Key, old: dict[str, Any], new: dict[str, Any]) -> Change:
    if old["shape"] != new["shape"]:
        return Change(key, "other shape")
    mine = [row["contenders"]["ours"] for row in (old, new)]
    times = [found.get("times") for found in mine]
    failed = ["match" in found and not found["match"]["passed"] for found in mine]
    if failed[1]:
        return Change(key, "fails now" if not failed[0] else "fails in both")
    if not times[0] or not times[1]:
        return Change(key, "passes now" if failed[0] else "not measured in both")
    before, after = times
    verdict = "faster" if after["q3"] < before["q1"] else "slower" if after["q1"] > before["q3"] else "same"
    return Change(
        key, verdict, after["median"] / before["median"], _peer_ratio(old, new), before["median"], after["median"]
    )


def _peer_ratio(old: dict[str, Any], new: dict[str, Any]) -> float | None:
    for name, found in old["contenders"].items():
        other = new["contenders"].get(name, {})
        if found["kind"] == "peer" and found.get("times") and other.get("times"):
            return float(other["times"]["median"] / found["times"]["median"])
    return None


def compare_results(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Changes of all rows that either has, in the order of the new one."""
    before = {_key(row): row for row in old["rows"]}
    after = {_key(row): row for row in new["rows"]}
    changes = [
        _change(key, before[key], row) if key in before else Change(key, "only in the new") for key, row in after.items()
    ]  # fmt: skip
    return changes + [Change(key, "only in the old") for key in before if key not in after]


def compare_lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The comparison as text: everything that changed, then a summary."""
    changes = compare_results(old, new)
    lines = [f"old: {_origin(old)}", f"new: {_origin(new)}"]
    for field in ("processor", "instruction_set", "torch"):
        was, now = old["machine"].get(field), new["machine"].get(field)
        if was != now:
            lines.append(f"careful: {field} was {was} and is {now}")
    for threads in sorted(set(old["ceilings"]) & set(new["ceilings"]), key=int):
        was, now = (result["ceilings"][threads]["multiply_add"] for result in (old, new))
        lines.append(f"FMA ceiling, {threads} thread(s): {was / 1e9:.0f} -> {now / 1e9:.0f} GFLOP/s")
    for change in changes:
        if change.verdict == "same":
            continue
        operation, workload, run_pass, dtype, threads, _ = change.key
        line = f"{change.verdict:<22}{workload}  {operation} {run_pass}, {dtype}, {threads_words(threads)}"
        if change.ratio is not None and change.old is not None and change.new is not None:
            line += f": {duration(change.old)} -> {duration(change.new)} (x {change.ratio:.2f}"
            line += f", peer x {change.peer_ratio:.2f})" if change.peer_ratio is not None else ")"
        lines.append(line)
    ratios = [change.ratio for change in changes if change.ratio is not None]
    counts = {verdict: sum(change.verdict == verdict for change in changes) for verdict in ("faster", "slower", "same")}
    lines.append(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + " (beyond, beyond, within the quartiles)")  # fmt: skip
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        lines.append(f"geometric mean of new / old times over {len(ratios)} rows: {mean:.3f}")
    return lines


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['date']}, {machine.get('gpu') or machine['processor']}, {machine['instruction_set']}, torch {machine['torch']}"
