"""The suite on a GPU: the same workloads, contenders and matches as on the CPU, timed as CUDA graphs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import torch

from vlmkernels import backends
from vlmkernels.bench.gpu_clock import GraphClock
from vlmkernels.bench.machine import describe_machine
from vlmkernels.bench.progress import Progress
from vlmkernels.bench.run import Clock, Plan, Row, dtype_name, measure_row, new_row
from vlmkernels.bench.suite import SCHEMA, Job, Result, row_lines
from vlmkernels.bench.workload import Unavailable, Workload

__all__ = ["gpu_reasons", "run_gpu_suite", "run_gpu_workload"]


def gpu_reasons() -> list[str]:
    """Why nothing can be timed on a GPU here; empty if it can."""
    if not torch.cuda.is_available():
        return ["torch finds no CUDA GPU"]
    return backends.reasons("cuda", "attention", "cuda", torch.bfloat16)


def run_gpu_suite(jobs: list[Job], command: str, write: Callable[[str], None] = print) -> Result:
    """Measures; shows every row as it is ready through `write`."""
    if against := gpu_reasons():
        raise ValueError(f"--device cuda: {'; '.join(against)}")
    clock = GraphClock(jobs[0][1].timing.samples if jobs else 1)
    major, minor = torch.cuda.get_device_capability()
    gpu = f"{torch.cuda.get_device_name()} (compute capability {major}.{minor}, CUDA {torch.version.cuda})"
    result: Result = {
        "schema": SCHEMA,
        "command": command,
        "machine": {**describe_machine(), "gpu": gpu},
        "plan": jobs[0][1].describe() if jobs else {},
        "ceilings": {},
        "rows": [],
    }
    write(f"{gpu}: CUDA graphs replayed in turns over a cold L2 cache, medians of {clock.samples}")
    with torch.cuda.stream(clock.stream), Progress(sum(plan.count(w) for w, plan in jobs)) as progress:
        for workload, plan in jobs:
            for row in run_gpu_workload(workload, plan, clock, "cuda", progress.tell):
                result["rows"].append(row)
                progress.write(write, row_lines(row))
    return result


def run_gpu_workload(
    workload: Workload, plan: Plan, clock: Clock, device: str = "cuda", tick: Callable[[str], None] = lambda what: None
) -> Iterator[Row]:
    """Rows of one workload, as they are ready."""
    shape = {**workload.shape, "B": plan.batch} if plan.batch and workload.operation != "contrastive" and "B" in workload.shape else workload.shape  # fmt: skip
    for dtype in plan.dtypes:
        if dtype not in workload.dtypes:
            continue
        for run_pass in plan.passes_of(workload):
            tick(f"{workload.name} {run_pass}, {dtype_name(dtype)}")
            row = new_row(workload, plan, dtype, run_pass, 0, shape)
            try:
                _fill(row, workload, plan, clock, dtype, device)
            except Unavailable as error:
                row["contenders"] = {"ours": {"kind": "ours", "missing": str(error)}}
            yield row
            gc.collect()  # what the row's graphs held
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _fill(row: Row, workload: Workload, plan: Plan, clock: Clock, dtype: torch.dtype, device: str) -> None:
    if against := backends.reasons("cuda", workload.kernel_name, device, dtype):
        raise Unavailable("; ".join(against))
    shape = {"name": workload.name, **row["shape"]}
    # Inputs are made on the device. Not so while calls are made: there the operators would take them for traced.
    with torch.device(device):
        prepared = workload.prepare(shape, dtype, row["pass"])
        exact = prepared.exact()
    row |= {"formula": prepared.formula, "flops": prepared.flops, "bytes": prepared.bytes, "items": prepared.items, "ceiling": None}  # fmt: skip
    measure_row(row, workload, plan, prepared, exact, clock)
