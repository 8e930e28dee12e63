"""From a plan to the whole result: machine, ceilings before and after, rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from vlmkernels import backends
from vlmkernels.bench.ceilings import Ceilings, CeilingSettings, measure_ceilings
from vlmkernels.bench.machine import describe_machine
from vlmkernels.bench.memory import MemoryServer
from vlmkernels.bench.progress import Progress
from vlmkernels.bench.run import Plan, Row, run_workload
from vlmkernels.bench.words import contender_line, row_title
from vlmkernels.bench.workload import Workload

__all__ = ["SCHEMA", "Job", "Result", "ceiling_lines", "default_threads", "row_lines", "run_suite"]

#: Raised when the meaning of a field changes.
SCHEMA = 1

Result = dict[str, Any]


def default_threads() -> tuple[int, ...]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (1,) if cores == 1 else (1, cores)


#: A workload and what of it to measure.
Job = tuple[Workload, Plan]


def run_suite(
    jobs: list[Job],
    command: str,
    write: Callable[[str], None] = print,
    settings: CeilingSettings | None = None,
) -> Result:
    """Measures; shows every row as it is ready through `write`."""
    if backends.native is None:
        raise ValueError(f"benchmarks need the compiled module: {backends.native_error}")

    def measure() -> dict[int, Ceilings]:
        return {
            t: measure_ceilings(t, settings or CeilingSettings())
            for t in sorted({1, *(t for _, plan in jobs for t in plan.threads)})
        }

    ceilings = measure()
    result: Result = {
        "schema": SCHEMA,
        "command": command,
        "machine": describe_machine(),
        "plan": jobs[0][1].describe() if jobs else {},
        "ceilings": {str(threads): found.to_dict() for threads, found in ceilings.items()},
        "rows": [],
    }
    for line in ceiling_lines(result["ceilings"]):
        write(line)
    with MemoryServer() as memory, Progress(sum(plan.count(w) for w, plan in jobs)) as progress:
        for workload, plan in jobs:
            for row in run_workload(workload, plan, ceilings, memory, progress.tell):
                result["rows"].append(row)
                progress.write(write, row_lines(row))
    result["ceilings_after"] = {str(threads): found.to_dict() for threads, found in measure().items()}
    return result


def ceiling_lines(ceilings: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for threads, found in ceilings.items():
        dot = f"{found['bf16_dot'] / 1e9:.0f}" if found["bf16_dot"] else "none (bf16 and fp16 count against FMA)"
        tiles = f", bf16 tiles {found['bf16_tiles'] / 1e9:.0f}" if found.get("bf16_tiles") else ""
        lines.append(
            f"ceilings of {found['isa']}, {threads} thread{'s' if threads != '1' else ''}: FMA {found['multiply_add'] / 1e9:.0f} GFLOP/s, bf16 dot {dot}{tiles}, "
            f"exp2 {found['exp2'] / 1e9:.1f} G/s, read {found['read'] / 1e9:.1f} GB/s, copy {found['copy'] / 1e9:.1f} GB/s"
        )
    return lines


def row_lines(row: Row) -> list[str]:
    return [row_title(row), *(contender_line(name, found, row) for name, found in row["contenders"].items())]
