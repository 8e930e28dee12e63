"""What can be said of the CUDA kernels without a GPU, row by row of shapes.json.

A row runs the workload's own call on the emulator, which makes the launch plans of the real problem and executes some of their blocks: those of one head of one batch
item, as all heads do the same work, or blocks spread over the grid where nothing repeats; of launches with the same plan, the first. Counters of the executed blocks are scaled to the grid. Registers come from the
compiler's report of the build; occupancy and waves from those and the limits of a multiprocessor.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

import vlmkernels
from vlmkernels import backends, images
from vlmkernels.bench.gpus import GPUS, Gpu
from vlmkernels.bench.patch_embed import patch_sizes
from vlmkernels.bench.progress import Progress
from vlmkernels.bench.shapes import Shape
from vlmkernels.bench.tensor_work import MMA_FLOP, attention_minimum, flash2, loss_minimum, patch_minimum
from vlmkernels.bench.workload import Call, Prepared, Workload

__all__ = ["SCHEMA", "Row", "run_static", "static_passes"]

#: Raised when the meaning of a field changes.
SCHEMA = 1

Row = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """`repeats`: parts of every grid, one after the other, that do the same work. At most `most_blocks` of a part
    run, evenly spread. `minimum`: tensor-core FLOP that no kernel avoids. `peer`: what FlashAttention-2 would do."""

    passes: tuple[str, ...]
    most_blocks: int
    repeats: Callable[[Shape], int]
    minimum: Callable[[Shape, str, torch.dtype], float]
    peer: Callable[[Shape, str, torch.dtype, Gpu], Any] = lambda *_: None


OPERATIONS = {
    "attention": Operation(
        passes=("forward", "backward"),
        most_blocks=512,
        repeats=lambda shape: shape.get("B", 1) * shape["Hk"],
        minimum=attention_minimum,
        peer=flash2,
    ),
    "patch_embed": Operation(
        passes=("forward", "backward"),
        most_blocks=16,
        repeats=lambda shape: 1,
        minimum=lambda shape, run_pass, dtype: patch_minimum(*patch_sizes(shape), run_pass, dtype),
    ),
    "contrastive": Operation(
        passes=("forward", "forward+backward"),
        most_blocks=8,
        repeats=lambda shape: 1,
        minimum=lambda shape, run_pass, dtype: loss_minimum(shape["B"], shape["B"], shape["D"], run_pass, dtype),
    ),
}


def static_passes(workload: Workload, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    known = OPERATIONS[workload.operation].passes if workload.operation in OPERATIONS else ()
    return tuple(p for p in known if not wanted or p in wanted or "all" in wanted)


def run_static(
    workloads: list[Workload],
    dtypes: tuple[torch.dtype, ...],
    passes: tuple[str, ...],
    command: str,
    write: Callable[[str], None] = lambda line: None,
    lines_of: Callable[[Row], list[str]] = lambda row: [],
) -> dict[str, Any]:
    """The report as plain data; `lines_of` a row are written as it is ready."""
    if backends.native is None:
        raise ValueError(f"the report needs the compiled module: {backends.native_error}")
    jobs, missing = [], dict[str, str]()
    for workload in workloads:
        for dtype in dtypes:
            for run_pass in static_passes(workload, passes):
                if against := backends.reasons("emulator", workload.kernel_name, "cpu", dtype):
                    missing[workload.kernel_name] = "; ".join(against)
                elif dtype in workload.dtypes:
                    jobs.append((workload, dtype, run_pass))
    result: dict[str, Any] = {
        "kind": "static",
        "schema": SCHEMA,
        "command": command,
        "vlmkernels": vlmkernels.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gpus": [asdict(gpu) for gpu in GPUS],
        "missing": missing,
        "rows": [],
    }
    with Progress(len(jobs)) as progress:
        for workload, dtype, run_pass in jobs:
            progress.tell(f"{workload.name} {run_pass}")
            row = static_row(workload, dtype, run_pass)
            result["rows"].append(row)
            progress.write(write, lines_of(row))
    return result


def static_row(workload: Workload, dtype: torch.dtype, run_pass: str) -> Row:
    started = time.perf_counter()
    operation, shape = OPERATIONS[workload.operation], workload.shape
    minimum = operation.minimum(shape, run_pass, dtype)
    prepared = workload.prepare(shape, dtype, run_pass)
    plans = []
    for gpus in _gpus_by_plan(prepared):
        launches = _emulate(prepared, gpus[0], operation.most_blocks, operation.repeats(shape))
        kernels = [_kernel(alike, gpus) for alike in launches]
        plans.append({"gpus": [gpu.name for gpu in gpus], "kernels": kernels, **_ratios(kernels, minimum, prepared.bytes)})  # fmt: skip
    peers = {gpu.name: operation.peer(shape, run_pass, dtype, gpu) for gpu in GPUS}
    return {
        "operation": workload.operation,
        "workload": workload.name,
        "pass": run_pass,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": {key: value for key, value in shape.items() if key != "name"},
        "minimum_mma": minimum / MMA_FLOP,
        "plans": plans,
        "flash2": {
            name: {**asdict(found), "mma_over_minimum": found.flop / minimum} for name, found in peers.items() if found
        },
        "seconds": round(time.perf_counter() - started, 2),
    }


# --- running ---

Choice = Callable[[dict[str, Any]], list[int]]  # of the blocks of a launch, given its plan


def _key(plan: dict[str, Any]) -> tuple[Any, ...]:
    return plan["kernel"], plan["grid"], plan["block"], plan["shared_bytes"]


def _call(prepared: Prepared, gpu: Gpu, choose: Choice) -> list[backends.EmulatedLaunch]:
    """The launches of one call. Of launches with the same plan the first alone runs blocks. What the call stands on, like the forward pass of a backward pass, is
    emulated the same way and left out."""
    seen = set[Any]()

    def once(plan: dict[str, Any]) -> list[int]:
        if _key(plan) in seen:
            return []
        seen.add(_key(plan))
        return choose(plan)

    with (
        backends.use_backend("emulator"),
        backends.emulation(
            counters=True, blocks=once, shared_bytes=gpu.block_shared_bytes, multiprocessors=gpu.multiprocessors
        ) as launches,
    ):
        call: Call = prepared.ours()
        launches.clear()
        seen.clear()
        call()
        return list(launches)


def _gpus_by_plan(prepared: Prepared) -> list[list[Gpu]]:
    """GPUs whose launches are the same, in the order of GPUS."""
    groups: dict[Any, list[Gpu]] = {}
    for gpu in GPUS:
        plans = tuple(_key(launch.plan) for launch in _call(prepared, gpu, lambda plan: []))
        groups.setdefault(plans, []).append(gpu)
    return list(groups.values())


def _emulate(prepared: Prepared, gpu: Gpu, most: int, repeats: int) -> list[list[backends.EmulatedLaunch]]:
    """Launches of one plan together, those with counters first."""

    def choose(plan: dict[str, Any]) -> list[int]:
        part = max(1, -(-_count(plan["grid"]) // repeats))
        return list(range(0, part, max(1, -(-part // most))))

    groups: dict[Any, list[backends.EmulatedLaunch]] = {}
    for launch in _call(prepared, gpu, choose):
        groups.setdefault(_key(launch.plan), []).append(launch)
    return list(groups.values())


def _count(dims: tuple[int, int, int]) -> int:
    x, y, z = dims
    return x * y * z


# --- counting ---

#: Classes of PTX instructions most of which the compiler folds into others or computes once.
_OVERHEAD = ("integer", "move", "compare", "control", "parameter")


def _kernel(launches: list[backends.EmulatedLaunch], gpus: list[Gpu]) -> dict[str, Any]:
    """Launches of one plan: what they do as a whole (scaled from the executed blocks of the first), and how each fills GPUs."""
    plan, counters = launches[0].plan, launches[0].report["counters"]
    grid, threads = _count(plan["grid"]), _count(plan["block"])
    scale = len(launches) * grid / counters["blocks"]
    traffic = [counters[name] for name in ("global_load", "global_store", "global_async", "global_atomic")]
    shared = [counters[name] for name in ("shared_load", "shared_store")]
    classes = counters["by_class"]
    tensor = classes["tensor"]
    counts = {
        "tensor_instructions": tensor,
        "tensor_flop": counters["tensor_flops"],
        "other_instructions": sum(classes.values()) - tensor,
        "work_instructions": sum(classes.values()) - tensor - sum(classes[name] for name in _OVERHEAD),
        "bytes": sum(t["bytes"] for t in traffic),
        "sectors": sum(t["sectors"] for t in traffic),
        "ideal_sectors": sum(t["ideal_sectors"] for t in traffic),
        "wavefronts": sum(t["wavefronts"] for t in shared),
        "ideal_wavefronts": sum(t["ideal_wavefronts"] for t in shared),
    }
    fills = {}
    for gpu in gpus:
        resources = images.resources(plan["image"]).get((plan["kernel"], gpu.architecture))
        if resources is not None:
            total_shared = plan["shared_bytes"] + resources.static_shared_bytes
            found = gpu.occupancy(grid, threads, resources.registers, total_shared)
            fills[gpu.name] = {"registers": resources.registers, "spill_bytes": resources.spill_bytes, **asdict(found)}
    return {
        "kernel": plan["kernel"],
        "launches": len(launches),
        "grid": grid,
        "threads": threads,
        "shared_bytes": plan["shared_bytes"],
        "executed_blocks": counters["blocks"],
        **{name: value * scale for name, value in counts.items()},
        "occupancy": fills,
    }


def _ratios(kernels: list[dict[str, Any]], minimum: float, needed_bytes: float) -> dict[str, float]:
    """Of all launches together."""

    def total(name: str) -> float:
        return sum(kernel[name] for kernel in kernels)

    def ratio(name: str, to: float) -> float:
        return total(name) / to if to else 0.0

    return {
        "mma_over_minimum": ratio("tensor_flop", minimum),
        "other_per_mma": ratio("other_instructions", total("tensor_instructions")),
        "work_per_mma": ratio("work_instructions", total("tensor_instructions")),
        "sectors_over_ideal": ratio("sectors", total("ideal_sectors")),
        "bank_conflicts": ratio("wavefronts", total("ideal_wavefronts")) - 1.0 if total("ideal_wavefronts") else 0.0,
        "bytes_over_tensors": ratio("bytes", needed_bytes),
    }
