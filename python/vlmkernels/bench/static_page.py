"""The static report as one self-contained page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from vlmkernels.bench.page import charts_html, document, table
from vlmkernels.bench.plots import Chart, Series

__all__ = ["render_static_page", "static_charts", "write_static_page"]

Row = dict[str, Any]

_METHOD = """
<p>Nothing here was timed and no GPU was used. The plans are those of the real problems. Some blocks of every launch were executed by the emulator, which runs the PTX that
the machine code is made of: all blocks of one head of one batch item where every head does the same work, else blocks spread over the grid, and of launches with the same plan the first alone; counters are scaled to
the whole grid.</p>
<ul>
<li><b>mma / minimum</b>: tensor-core operations issued over those of the products that are needed, with rows padded to 16 and columns to 8 (forward 2, backward 5 products; masked
tiles are not needed). A kernel that computes a product again, like most backward passes here, is above 1 for it.</li>
<li><b>FlashAttention-2</b>: the same for its tile rule (tile sizes, head_dim templates, split of keys), from its published launch templates; it was not run.</li>
<li><b>other / mma</b>: PTX instructions that are not tensor-core instructions, per tensor-core instruction, over whole kernels. Machine code has fewer: the second figure leaves
out addresses, moves, comparisons and control, which the compiler folds or computes once.</li>
<li><b>sectors / ideal</b>: 32-byte sectors of global memory touched over those the bytes fill; below 1 where lanes read the same bytes. <b>bytes / tensors</b>: global bytes asked for over every
input and output once; caches serve what exceeds 1.</li>
<li><b>conflicts</b>: passes over the banks of shared memory beyond those the bytes need.</li>
<li><b>blocks an SM, waves</b>: from registers (as compiled for that GPU), shared memory and threads. Waves: blocks of the grid over the blocks the GPU holds at a time.</li>
</ul>
"""


def write_static_page(result: Row, path: Path) -> None:
    path.write_text(render_static_page(result), encoding="utf-8")


def render_static_page(result: Row) -> str:
    sections = [("figures", "Figures", _METHOD + charts_html(static_charts(result)))]
    for key, rows in _groups(result).items():
        anchor = "-".join(key).replace("+", "-")
        sections.append((anchor, ", ".join(key), _ratios(rows) + _kernels(rows, result["gpus"])))
    if result["missing"]:
        words = "; ".join(f"{name} ({why})" for name, why in result["missing"].items())
        sections.append(("missing", "Not in the report", f"<p>{html.escape(words)}</p>"))
    line = f"{result['date']} · vlmkernels {result['vlmkernels']} · {result['command']}"
    return document("vlmkernels CUDA kernels, without a GPU", line, result["date"][:10], sections)


def _groups(result: Row) -> dict[tuple[str, str, str], list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in result["rows"]:
        groups.setdefault((row["operation"], row["pass"], row["dtype"]), []).append(row)
    return groups


def static_charts(result: Row) -> list[Chart]:
    """Issued over minimum against the number of keys beside FlashAttention-2, and what else is issued against head_dim; on the first GPU."""
    charts = []
    for key, rows in _groups(result).items():
        sized = [row for row in rows if "Sk" in row["shape"]]
        if not sized:
            continue
        title = ", ".join(key)
        ours = [(float(r["shape"]["Sk"]), r["plans"][0]["mma_over_minimum"], r["workload"]) for r in sized]
        first = result["gpus"][0]["name"]
        flash2 = [
            (float(r["shape"]["Sk"]), r["flash2"][first]["mma_over_minimum"], r["workload"])
            for r in sized
            if first in r["flash2"]
        ]
        series = [_dots("ours", ours, 0), *([_dots("FlashAttention-2's rule", flash2, 1)] if flash2 else [])]
        charts.append(Chart(f"{title}: mma / minimum", "keys", "issued over needed", series, x_log=2))
        work = [(float(r["shape"]["D"]), r["plans"][0]["work_per_mma"], r["workload"]) for r in rows]
        charts.append(Chart(f"{title}: other / mma", "head_dim", "PTX, without addresses and moves", [_dots("ours", work, 0)]))  # fmt: skip
    return charts


def _dots(label: str, points: list[tuple[float, float, str]], colour: int) -> Series:
    return Series(label, [(x, y) for x, y, _ in points], colour, line=False, names=[name for _, _, name in points])


def _ratios(rows: list[Row]) -> str:
    cells = []
    for row in rows:
        for plan in row["plans"]:
            gpus = "" if len(row["plans"]) == 1 else f"<br><small>{html.escape(', '.join(plan['gpus']))}</small>"
            shape = ", ".join(f"{key} {value}" for key, value in row["shape"].items())
            name = f'<span title="{html.escape(shape)}">{html.escape(row["workload"])}</span>{gpus}'
            cells.append(
                [name, f"{plan['mma_over_minimum']:.2f}", _flash2(row, plan["gpus"]), f"{plan['other_per_mma']:.2f}", f"{plan['work_per_mma']:.2f}",
                 f"{plan['sectors_over_ideal']:.2f}", f"{plan['bank_conflicts']:.1%}", f"{plan['bytes_over_tensors']:.2f}"]
            )  # fmt: skip
    head = ["workload", "mma / minimum", "FlashAttention-2", "other / mma", "without addresses", "sectors / ideal", "conflicts", "bytes / tensors"]  # fmt: skip
    return table(head, cells)


def _flash2(row: Row, gpus: list[str]) -> str:
    found = {
        f"{f['mma_over_minimum']:.2f} <small>{f['queries']}x{f['keys']}</small>": None
        for f in map(row["flash2"].get, gpus)
        if f
    }
    return ", ".join(found) or "-"


def _kernels(rows: list[Row], gpus: list[Row]) -> str:
    cells = []
    for row in rows:
        for plan in row["plans"]:
            for kernel in plan["kernels"]:
                fills = [kernel["occupancy"].get(gpu["name"]) for gpu in gpus]
                shared = f"{kernel['shared_bytes'] / 1024:.1f}"
                cells.append(
                    [html.escape(row["workload"]), html.escape(kernel["kernel"]), str(kernel["launches"]), f"{kernel['grid']:,}", f"{kernel['executed_blocks']:,}", str(kernel["threads"]), shared,
                     *("" if f is None else f'<span title="{f["registers"]} registers; limit: {f["limit"]}">{f["blocks"]}, {f["waves"]:.2f}</span>' for f in fills)]
                )  # fmt: skip
    head = ["workload", "kernel", "launches", "blocks", "executed", "threads", "KB", *(f"{html.escape(gpu['name'])}: blocks an SM, waves" for gpu in gpus)]  # fmt: skip
    return f"<details><summary>{len(cells)} launches</summary>{table(head, cells, 2)}</details>"
