"""The run: every workload in every dtype, pass and number of threads, as plain data."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlmkernels.bench.ceilings import Ceilings
from vlmkernels.bench.match import Match, check_match
from vlmkernels.bench.memory import MemoryServer
from vlmkernels.bench.shapes import Shape
from vlmkernels.bench.timing import Settings, Times, interleaved
from vlmkernels.bench.workload import Call, Prepared, Unavailable, Workload

__all__ = ["Clock", "Plan", "Row", "dtype_name", "measure_row", "new_row", "row_command", "run_workload"]

Row = dict[str, Any]

#: A call that takes longer than this share of the ceiling allows is what `Plan.call_seconds` is compared with.
_EXPECTED_SHARE = 0.4


@dataclass(frozen=True)
class Plan:
    """What of a workload to measure. `peers` are names, or "default" or "all" or none; dense batches are scaled down until a call of ours takes about
    `call_seconds`, unless `full`. Memory is measured where it belongs to the workload ("auto"), for all ("all") or not ("none")."""

    dtypes: tuple[torch.dtype, ...]
    threads: tuple[int, ...]
    passes: tuple[str, ...] = ()
    peers: tuple[str, ...] = ("default",)
    full: bool = False
    call_seconds: float = 1.0
    memory: str = "auto"
    gpu: bool = False
    batch: int = 0  # of dense shapes on a GPU; 0: their own
    timing: Settings = field(default_factory=Settings)

    def passes_of(self, workload: Workload) -> tuple[str, ...]:
        """Forward by default; a loss is trained with, so forward and backward."""
        default = ("forward+backward",) if workload.operation == "contrastive" else ("forward",)
        wanted = workload.passes if self.passes == ("all",) else self.passes or default
        return tuple(p for p in wanted if p in workload.passes)

    def peers_of(self, workload: Workload) -> tuple[str, ...]:
        if self.peers == ("default",):
            return (self.gpu and workload.gpu_peers) or workload.default_peers
        if self.peers == ("all",):
            return workload.peers
        return tuple(name for name in self.peers if name in workload.peers)

    def count(self, workload: Workload) -> int:
        """Rows there will be."""
        dtypes = sum(dtype in workload.dtypes for dtype in self.dtypes)
        return len(self.passes_of(workload)) * dtypes * len(self.threads_of(workload))

    def threads_of(self, workload: Workload) -> tuple[int, ...]:
        return (1,) if workload.bound == "host" else self.threads

    def describe(self) -> dict[str, Any]:
        return {
            "peers": list(self.peers),
            "full": self.full,
            "call_seconds": self.call_seconds,
            "memory": self.memory,
            "batch": self.batch,
            "timing": asdict(self.timing),
        }


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def row_command(workload: Workload, plan: Plan, dtype: torch.dtype, run_pass: str, threads: int) -> str:
    """The command that measures this row alone."""
    isa = os.environ.get("VLMKERNELS_CPU_ISA")
    peers = ",".join(plan.peers_of(workload)) or "none"
    return (
        (f"VLMKERNELS_CPU_ISA={isa} " if isa else "")
        + f"vlmkernels bench {workload.name} --op {workload.operation} --pass {run_pass} --dtype {dtype_name(dtype)} "
        + (f"--device cuda --peers {peers}" if plan.gpu else f"--threads {threads} --peers {peers}")
        + (f" --batch {plan.batch}" if plan.batch else "")
        + (" --full" if plan.full else "")
        + (f" --seconds {plan.call_seconds:g}" if plan.call_seconds != Plan.call_seconds else "")
        + (f" --samples {plan.timing.samples}" if plan.timing.samples != Settings.samples else "")
        + (f" --memory {plan.memory}" if plan.memory != Plan.memory else "")
    )


def run_workload(
    workload: Workload, plan: Plan, ceilings: dict[int, Ceilings], memory: MemoryServer, tick: Callable[[str], None] = lambda what: None
) -> Iterator[Row]:  # fmt: skip
    """Rows of one workload, as they are ready. The number of threads of torch is left as it was."""
    before = torch.get_num_threads()
    try:
        for dtype in plan.dtypes:
            if dtype not in workload.dtypes:
                continue
            for run_pass in plan.passes_of(workload):
                yield from _run_pass(workload, plan, ceilings, memory, dtype, run_pass, tick)
    finally:
        gc.collect()
        torch.set_num_threads(before)


def _run_pass(
    workload: Workload, plan: Plan, ceilings: dict[int, Ceilings], memory: MemoryServer, dtype: torch.dtype, run_pass: str, tick: Callable[[str], None]
) -> Iterator[Row]:  # fmt: skip
    slowest = ceilings[min(ceilings)].flops(dtype)[1]
    shape, note = (
        (workload.shape, "")
        if plan.full or workload.sweep
        else workload.scaled(_EXPECTED_SHARE * slowest, plan.call_seconds, run_pass)
    )
    torch.set_num_threads(max(plan.threads_of(workload)))
    prepared: Prepared | None = None
    why = ""
    try:
        tick(f"{workload.name}: inputs")
        prepared = workload.prepare(shape, dtype, run_pass)
        tick(f"{workload.name}: float64")
        exact = prepared.exact()
    except Unavailable as error:
        why = str(error)
    for threads in plan.threads_of(workload):
        torch.set_num_threads(threads)
        row = new_row(workload, plan, dtype, run_pass, threads, shape, note)
        if workload.sweep is not None:
            row["sweep"] = workload.sweep
        if prepared is None:
            row["contenders"]["ours"] = {"kind": "ours", "missing": why}
            yield row
            continue
        row |= {"formula": prepared.formula, "flops": prepared.flops, "bytes": prepared.bytes, "items": prepared.items}
        row["ceiling"] = _ceiling(workload, ceilings[threads], dtype)
        tick(f"{workload.name}: {dtype_name(dtype)}, {threads} thread{'s' if threads > 1 else ''}")
        with_memory = plan.memory == "all" or (plan.memory == "auto" and workload.memory)
        ask = functools.partial(memory.ask, workload, shape, row["dtype"], threads, run_pass)
        clock: Clock = lambda calls: (interleaved(calls, plan.timing), {})  # noqa: E731
        measure_row(row, workload, plan, prepared, exact, clock, ask if with_memory else None)
        yield row


def new_row(workload: Workload, plan: Plan, dtype: torch.dtype, run_pass: str, threads: int, shape: Shape, note: str = "") -> Row:  # fmt: skip
    """Nothing measured yet. On a GPU there are 0 threads."""
    return {
        "operation": workload.operation,
        "workload": workload.name,
        "pass": run_pass,
        "dtype": dtype_name(dtype),
        "threads": threads,
        "shape": {key: value for key, value in shape.items() if key != "name"},
        "note": note,
        "bound": workload.bound,
        "command": row_command(workload, plan, dtype, run_pass, threads),
        "contenders": {},
    }


def _ceiling(workload: Workload, ceilings: Ceilings, dtype: torch.dtype) -> dict[str, Any] | None:
    if workload.bound == "host":
        return None
    name, value = ("read", ceilings.read) if workload.bound == "read" else ceilings.flops(dtype)
    return {"name": name, "value": value}


@dataclass
class _Contender:
    kind: str
    make: Callable[[], Call]
    call: Call | None = None
    missing: str = ""
    match: Match | None = None


#: Times calls that take turns, and says why the others could not be timed.
Clock = Callable[[dict[str, Call]], tuple[dict[str, Times], dict[str, str]]]


def measure_row(
    row: Row, workload: Workload, plan: Plan, prepared: Prepared, exact: tuple[Tensor, ...], clock: Clock,
    memory: Callable[[str], dict[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Adds every contender to the row: its match, and its speed if that is right. `memory` answers for a contender."""
    wanted = plan.peers_of(workload)
    contenders = {"ours": _Contender("ours", prepared.ours)}
    contenders |= {name: _Contender("peer", make) for name, make in prepared.peers.items() if name in wanted}
    contenders |= {
        name: _Contender("part", make)
        for name, make in prepared.parts.items()
        if name in wanted or name not in workload.peers
    }
    for contender in contenders.values():
        _make(contender)
    _match_all(contenders, prepared, exact)
    timed = {n: c.call for n, c in contenders.items() if c.call is not None and (c.match is None or c.match.passed)}
    times, untimed = clock(timed)
    for name, why in untimed.items():
        contenders[name].missing = why
    for name, contender in contenders.items():
        found: dict[str, Any] = {"kind": contender.kind}
        row["contenders"][name] = found
        if contender.missing:
            found["missing"] = contender.missing
            continue
        if contender.match is not None:
            found["match"] = contender.match.to_dict()
        if name in times:
            found |= _speed(times[name], row, prepared, contender.kind)
        if memory is not None and contender.kind != "part" and name != "compile":
            answer = memory(name)
            found["memory_bytes"], found["memory_error"] = answer.get("bytes"), answer.get("error")
    ours = row["contenders"]["ours"].get("times")
    for found in row["contenders"].values():
        if ours and found.get("times"):
            found["ratio"] = found["times"]["median"] / ours["median"]


def _make(contender: _Contender) -> None:
    try:
        contender.call = contender.make()
    except Unavailable as error:
        contender.missing = str(error)
    except Exception as error:  # a peer that fails is missing, whatever its library raises; ours must not fail
        if contender.kind == "ours":
            raise
        contender.missing = _reason(error)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _match_all(contenders: dict[str, _Contender], prepared: Prepared, exact: tuple[Tensor, ...]) -> None:
    """Runs everything that computes the outputs once and holds it against float64. PyTorch's own result is the yardstick even where its time is not asked for."""
    found: dict[str, tuple[Tensor, ...]] = {}
    for name, contender in contenders.items():
        if contender.call is None or contender.kind == "part":
            continue
        try:
            found[name] = tuple(t.detach().clone() for t in prepared.sample(contender.call()))
        except Exception as error:
            if contender.kind == "ours":
                raise
            contender.call, contender.missing = None, _reason(error)
    yardstick = found.get(prepared.yardstick)
    if yardstick is None:
        yardstick = prepared.sample(prepared.peers[prepared.yardstick]()())
    for name, outputs in found.items():
        contenders[name].match = check_match(prepared.outputs, outputs, yardstick, exact)


def _speed(times: Times, row: Row, prepared: Prepared, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"times": asdict(times)}
    flops = prepared.part_flops if kind == "part" else prepared.flops
    if flops:
        found["flops_per_second"] = flops / times.median
    if prepared.bytes and kind != "part":
        found["bytes_per_second"] = prepared.bytes / times.median
    if prepared.items and kind != "part":
        found["items_per_second"] = prepared.items / times.median
    rate = found.get("bytes_per_second" if row["bound"] == "read" else "flops_per_second")
    if rate and row["ceiling"]:
        found["share"] = rate / row["ceiling"]["value"]
    return found
