"""Writes the performance table of README.md from the newest result in benchmarks/results.

python benchmarks/readme_table.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmkernels.bench.files import read_json
from vlmkernels.bench.words import duration, scaled_number

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- performance: begin -->\n", "<!-- performance: end -->\n"

#: (operation, workload, pass): what a reader looks for first.
_LINES = (
    ("attention", "clip-b16", "forward"),
    ("attention", "siglip-so400m-384", "forward"),
    ("attention", "mllama-vision-tile", "forward"),
    ("attention", "siglip-so400m-384", "forward+backward"),
    ("attention", "qwen25vl-window", "forward"),
    ("attention", "llama32v-cross-masked", "forward"),
    ("attention", "llama32v-cross-decode", "forward"),
    ("patch_embed", "vit-b16-224", "forward"),
    ("patch_embed", "qwen2vl-packed", "forward"),
    ("contrastive", "clip-4k", "forward+backward"),
    ("contrastive", "siglip-4k", "forward+backward"),
)
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def newest_result() -> dict[str, Any] | None:
    """Results are named by their date, YYYY-MM-DD."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    return read_json(files[-1]) if files else None


def with_table(readme: str, result: dict[str, Any] | None) -> str:
    """The README with what stands between the two markers replaced."""
    start, end = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    return readme[:start] + _table(result) + readme[end:]


def _table(result: dict[str, Any] | None) -> str:
    if result is None:
        return "No result is stored yet: `vlmkernels bench --bars` measures on your machine.\n"
    machine = result["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, instruction set {machine['instruction_set']}, torch {machine['torch']}, {machine['date'][:10]}; "
        "medians, every line from one process in which ours and torch's take turns:",
        "",
        "| workload | dtype | threads | time | of the ceiling | against |",
        "|---|---|---|---|---|---|",
    ]
    for operation, workload, run_pass in _LINES:
        for row in result["rows"]:
            if (row["operation"], row["workload"], row["pass"]) == (operation, workload, run_pass) and row["dtype"] != "float16":  # fmt: skip
                lines.append(_line(row))
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    ours = row["contenders"]["ours"]
    name = row["workload"] + (f" {row['pass']}" if row["pass"] != "forward" else "")
    if "times" not in ours:
        return f"| {name} | {_DTYPES[row['dtype']]} | {row['threads']} | - | - | - |"
    share = f"{ours['share']:.0%}".replace("%", " %") if "share" in ours else "-"
    if row["bound"] == "read":
        share += f" ({scaled_number(ours['bytes_per_second'], 'B/s')})"
    ratios = [
        f"{found['ratio']:.1f} x {contender}"
        for contender, found in row["contenders"].items()
        if found["kind"] != "ours" and "ratio" in found and not contender.startswith("ours")
    ]
    return f"| {name} | {_DTYPES[row['dtype']]} | {row['threads']} | {duration(ours['times']['median'])} | {share} | {', '.join(ratios)} |"


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), newest_result()), encoding="utf-8")


if __name__ == "__main__":
    main()
