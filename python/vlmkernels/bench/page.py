"""One self-contained page of a result: no scripts, no other files."""

from __future__ import annotations

import html
import importlib.resources
from pathlib import Path
from typing import Any

from vlmkernels.bench.bars import evaluate_bars
from vlmkernels.bench.figures import length_charts, memory_charts, roofline_charts, scaling_charts
from vlmkernels.bench.plots import Chart
from vlmkernels.bench.words import duration, match_words, memory_size, scaled_number, threads_words

__all__ = ["charts_html", "document", "render_page", "table", "write_page"]

Row = dict[str, Any]

_METHOD = """
<p>Ours and every peer take turns, call by call, in one process; times are medians with the quartiles in brackets, over at least ten samples, fewer where a round of
calls takes seconds (the number is given). A ratio above 1 means that the peer takes longer. The share is of the ceiling that was measured in this run on the same number
of threads. The match column is the largest error against float64 as a share of the error allowed by the accuracy rule: at most twice that of PyTorch's own result in the
same dtype (gradients three times), plus the rounding of the output. A result that fails it shows no speed. Peak extra memory is how far the resident memory of a fresh
process rises above its inputs.</p>
"""


def write_page(result: dict[str, Any], path: Path) -> None:
    path.write_text(render_page(result), encoding="utf-8")


def render_page(result: dict[str, Any]) -> str:
    machine = result["machine"]
    sections = [
        ("machine", "Machine", _machine(result)),
        ("bars", "Bars", _bars(result)),
        ("roofline", "Roofline", charts_html(roofline_charts(result))),
        ("length", "Attention: speed and sequence length", charts_html(length_charts(result))),
        ("memory", "Losses: memory and batch", charts_html(memory_charts(result))),
        ("scaling", "Cost and size", charts_html(scaling_charts(result))),
        ("tables", "Tables", _METHOD + _tables(result)),
        ("commands", "Commands", _commands(result)),
    ]
    line = f"{machine['date']} · {machine.get('gpu') or machine['processor']} · {machine['instruction_set']} · torch {machine['torch']}"
    return document("vlmkernels benchmarks", line, machine["date"][:10], sections)


def document(title: str, line: str, date: str, sections: list[tuple[str, str, str]]) -> str:
    """A page of sections: anchor, title and HTML, without those that are empty."""
    style = (importlib.resources.files("vlmkernels.bench") / "page.css").read_text(encoding="utf-8")
    shown = [section for section in sections if section[2]]
    nav = "".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in shown)
    body = "".join(f'<h2 id="{anchor}">{heading}</h2>{content}' for anchor, heading, content in shown)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}, {html.escape(date)}</title><style>{style}</style></head><body>"
        f'<h1>{title}</h1><div class="soft">{html.escape(line)}</div><nav>{nav}</nav>{body}</body></html>\n'
    )


def table(head: list[str], rows: list[list[str]], text_columns: int = 1, kind: str = "") -> str:
    """Cells are HTML; the first `text_columns` are set left."""

    def cells(tag: str, row: list[str]) -> str:
        return "".join(f"<{tag}{' class=t' if i < text_columns else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def charts_html(charts: list[Chart]) -> str:
    drawn = "".join(chart.to_html() for chart in charts)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    facts = [
        *([("GPU", machine["gpu"])] if machine.get("gpu") else []),
        ("processor", machine["processor"]),
        ("cores", machine["cores"]),
        ("memory", memory_size(machine["memory_bytes"])),
        ("instruction set in use", f"{machine['instruction_set']} (of {', '.join(machine['instruction_sets'])})"),
        ("system", f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}"),
        ("vlmkernels", f"{machine['vlmkernels']}, built with {machine['compiler']}"),
        ("peers' packages", ", ".join(f"{name} {version or 'missing'}" for name, version in machine["packages"].items())),
        ("command of the whole run", result["command"]),
    ]  # fmt: skip
    facts_table = table(["", ""], [[html.escape(name), html.escape(str(value))] for name, value in facts], 2)
    rows = []
    for name, ceilings in (("before", result["ceilings"]), ("after", result.get("ceilings_after", {}))):
        for threads, c in ceilings.items():
            dot = f"{c['bf16_dot'] / 1e9:.0f}" if c["bf16_dot"] else "none"
            tiles = f"{c['bf16_tiles'] / 1e9:.0f}" if c.get("bf16_tiles") else "none"
            products = [f"{c['torch_product'][dtype] / 1e9:.0f}" for dtype in ("float32", "bfloat16")]
            rates = [f"{c['multiply_add'] / 1e9:.0f}", dot, tiles, f"{c['exp2'] / 1e9:.1f}", f"{c['read'] / 1e9:.1f}", f"{c['copy'] / 1e9:.1f}"]  # fmt: skip
            rows.append([name, threads, *rates, *products])
    head = ["measured", "threads", "FMA GFLOP/s", "bf16 dot GFLOP/s", "bf16 tiles GFLOP/s", "exp2 G/s", "read GB/s", "copy GB/s", "torch product fp32", "torch product bf16"]  # fmt: skip
    if not rows:
        return facts_table
    has_dot = any(c["bf16_dot"] for c in result["ceilings"].values())
    words = "" if has_dot else " This instruction set has no bf16 dot product: bf16 is widened to fp32, and its ceiling is the FMA ceiling."  # fmt: skip
    return (
        facts_table
        + "<h3>Ceilings</h3><p>The best of several readings of loops that never leave the registers, and of memory much larger than the last cache, read or copied once. "
        + f"fp16 counts against the FMA ceiling.{words}</p>"
        + table(head, rows, 1)
    )


def _bars(result: dict[str, Any]) -> str:
    if not result["ceilings"]:
        return ""
    bars = evaluate_bars(result)
    if all(bar.met is None for bar in bars):
        return ""
    verdicts = {True: '<span class="yes">met</span>', False: '<span class="no">not met</span>', None: '<span class="soft">-</span>'}  # fmt: skip
    rows = [[verdicts[bar.met], *(html.escape(text) for text in (bar.what, bar.condition, bar.limit, bar.measured))] for bar in bars]  # fmt: skip
    return f"<p>Evaluated on instruction set {html.escape(str(result['machine']['instruction_set']))}.</p>" + table(
        ["", "bar", "where", "limit", "measured"], rows, 5
    )


def _tables(result: dict[str, Any]) -> str:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in result["rows"]:
        groups.setdefault((row["operation"], row["pass"], row["dtype"]), []).append(row)
    return "".join(_group(*key, rows) for key, rows in groups.items())


def _group(operation: str, run_pass: str, dtype: str, rows: list[Row]) -> str:
    others = list(dict.fromkeys(name for row in rows for name in row["contenders"] if name != "ours"))
    with_memory = any(found.get("memory_bytes") is not None for row in rows for found in row["contenders"].values())
    head = ["workload", "threads", "ours", "rate", "of the ceiling", *(f"{html.escape(n)} / ours" for n in others), "match"]  # fmt: skip
    head += ["extra memory, ours and peers"] if with_memory else []
    formulas = dict.fromkeys(row["formula"] for row in rows if "formula" in row)
    missing = _missing(rows)
    return (
        f"<h3>{html.escape(operation)}, {html.escape(run_pass)}, {html.escape(dtype)}</h3>"
        + "".join(f"<small>{html.escape(formula)}</small><br>" for formula in formulas)
        + table(head, [_row(row, others, with_memory) for row in rows])
        + (f"<p><small>{missing}</small></p>" if missing else "")
    )


def _missing(rows: list[Row]) -> str:
    """Peers that are missing, each reason once."""
    reasons: dict[tuple[str, str], None] = {}
    for row in rows:
        for name, found in row["contenders"].items():
            if "missing" in found:
                reasons[name, found["missing"]] = None
    return "; ".join(f"missing: {html.escape(name)} ({html.escape(why)})" for name, why in reasons)


def _row(row: Row, others: list[str], with_memory: bool) -> list[str]:
    ours = row["contenders"]["ours"]
    shape = ", ".join(f"{key} {value}" for key, value in row["shape"].items())
    note = f"<br><small>{html.escape(row['note'])}</small>" if row["note"] else ""
    name = f'<span title="{html.escape(shape)}">{html.escape(row["workload"])}</span>{note}'
    cells = [name, str(row["threads"] or "GPU"), _time(ours), _rate(ours, row), _share(ours, row)]
    for other in others:
        found = row["contenders"].get(other)
        cells.append("" if found is None else _ratio(found))
    cells.append("missing" if "missing" in ours else _match(ours))
    if with_memory:
        sizes = [(n, f["memory_bytes"]) for n, f in row["contenders"].items() if f.get("memory_bytes") is not None]
        cells.append(", ".join(f"{memory_size(size)}{'' if n == 'ours' else f' ({html.escape(n)})'}" for n, size in sizes))  # fmt: skip
    return cells


def _time(found: Row) -> str:
    times = found.get("times")
    if times is None:
        return "-"
    few = f", n {times['samples']}" if times["samples"] < 10 else ""
    return f"{duration(times['median'])} <small>({duration(times['q1'])} .. {duration(times['q3'])}{few})</small>"


def _rate(found: Row, row: Row) -> str:
    if "items_per_second" in found and row["operation"] == "model":
        return f"{found['items_per_second']:.3g} images/s"
    if row["bound"] == "read" and "bytes_per_second" in found:
        return scaled_number(found["bytes_per_second"], "B/s")
    return scaled_number(found["flops_per_second"], "FLOP/s") if "flops_per_second" in found else "-"


def _share(found: Row, row: Row) -> str:
    if "share" not in found:
        return "-"
    width = min(found["share"], 1.0) * 100
    return f'<span class="share" title="{html.escape(row["ceiling"]["name"])}"><i style="width:{width:.0f}%"></i></span>{found["share"]:.0%}'  # fmt: skip


def _ratio(found: Row) -> str:
    if "missing" in found:
        return '<span class="soft">missing</span>'
    if "times" not in found:
        return '<span class="no">fails</span>'
    title = (
        f"{duration(found['times']['median'])} ({duration(found['times']['q1'])} .. {duration(found['times']['q3'])})"
    )
    return f'<span title="{title}">{found["ratio"]:.2f}</span>' if "ratio" in found else title


def _match(found: Row) -> str:
    text = html.escape(match_words(found))
    return text if found.get("match", {"passed": True})["passed"] else f'<span class="no">{text}</span>'


def _commands(result: dict[str, Any]) -> str:
    rows = [
        [html.escape(f"{row['workload']}, {row['operation']} {row['pass']}, {row['dtype']}, {threads_words(row['threads'])}"), f"<code>{html.escape(row['command'])}</code>"]
        for row in result["rows"]
    ]  # fmt: skip
    if not rows:
        return ""
    whole = f"<p>Every number of a row comes from one command; all of them together from <code>{html.escape(result['command'])}</code>.</p>"  # fmt: skip
    return (
        f"{whole}<details><summary>{len(rows)} rows</summary>{table(['row', 'command'], rows, 2, 'commands')}</details>"
    )
