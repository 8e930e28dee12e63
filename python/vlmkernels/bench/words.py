"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

__all__ = ["contender_line", "duration", "memory_size", "row_title", "scaled_number", "threads_words"]


def duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor or unit == "us":
            return f"{seconds / factor:.3g} {unit}" if seconds < 1000 * factor else f"{seconds / factor:.0f} {unit}"
    raise AssertionError


def scaled_number(value: float, unit: str) -> str:
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= factor or prefix == "M":
            return f"{value / factor:.3g} {prefix}{unit}" if value < 1000 * factor else f"{value / factor:.0f} {prefix}{unit}"  # fmt: skip
    raise AssertionError


def memory_size(size: float) -> str:
    return f"{size / 2**20:.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:.1f} GiB"


def threads_words(threads: int) -> str:
    """Where a row was measured: on so many threads of the CPU, or on the GPU."""
    return f"{threads} thread{'s' if threads > 1 else ''}" if threads else "GPU"


def row_title(row: dict[str, Any]) -> str:
    note = f"  ({row['note']})" if row["note"] else ""
    return f"{row['workload']}  {row['operation']} {row['pass']}, {row['dtype']}, {threads_words(row['threads'])}{note}"


def match_words(found: dict[str, Any]) -> str:
    """The match column: the largest error as a share of the allowed one."""
    match = found.get("match")
    if match is None:
        return "-"
    return f"{match['share']:.2f}" if match["passed"] else f"FAILED ({match['worst']} {match['share']:.3g} of the allowed error)"  # fmt: skip


def contender_line(name: str, found: dict[str, Any], row: dict[str, Any]) -> str:
    """One line of the console's table."""
    if "missing" in found:
        return f"  {name:<20}missing: {found['missing']}"
    times = found.get("times")
    if times is None:
        return f"  {name:<20}no speed: match {match_words(found)}"
    spread = f"{duration(times['q1'])} .. {duration(times['q3'])}, n {times['samples']}"
    rates = []
    if row["bound"] == "read" and "bytes_per_second" in found:
        rates.append(scaled_number(found["bytes_per_second"], "B/s"))
    elif "flops_per_second" in found:
        rates.append(scaled_number(found["flops_per_second"], "FLOP/s"))
    if "share" in found:
        rates.append(f"{found['share']:.0%} of {row['ceiling']['name']}")
    if "items_per_second" in found and row["operation"] in ("model", "patch_embed"):
        rates.append(f"{found['items_per_second']:.3g} images/s")
    line = f"  {name:<20}{duration(times['median']):>9}  ({spread})".ljust(62) + f"  {', '.join(rates):<34}"
    if found["kind"] != "ours" and "ratio" in found:
        line += f"  {found['ratio']:.2f} x ours"
    line += f"  match {match_words(found)}"
    if found.get("memory_bytes") is not None:
        line += f"  +{memory_size(found['memory_bytes'])}"
    return line.rstrip()
