"""Peak extra memory of one call: how far the resident memory of a process rises above what it held with its inputs ready.

A small server, ``python -m vlmkernels.bench.memory``, imports everything once and forks a fresh child for each question, so that no call sees what another left
behind. Questions and answers are JSON, a line each.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from vlmkernels.bench.catalog import select
from vlmkernels.bench.workload import Unavailable, Workload

__all__ = ["MemoryServer", "peak_extra_memory"]


class MemoryServer:
    """Asks the server; starts it with the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> MemoryServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # fmt: skip
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def ask(self, workload: Workload, shape: dict[str, Any], dtype: str, threads: int, run_pass: str, contender: str) -> dict[str, Any]:  # fmt: skip
        """{"bytes": ...} or {"error": why}."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vlmkernels.bench.memory"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {
            "operation": workload.operation,
            "workload": workload.name,
            "shape": shape,
            "dtype": dtype,
            "threads": threads,
            "pass": run_pass,
            "contender": contender,
        }
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._process = None
            return {"error": "the process that measures memory ended"}
        found: dict[str, Any] = json.loads(answer)
        return found


def _resident(field: str) -> int | None:
    """Bytes of a field of /proc/self/status."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _return_free_memory() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_extra_memory(call: Any) -> int:
    """Bytes by which the resident memory of this process rises at most during `call()`; outputs count, inputs do not."""
    _return_free_memory()
    unit = 1 if sys.platform == "darwin" else 1024
    before = _resident("VmRSS") if _reset_peak() else None
    if before is None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    kept = call()
    peak = _resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    del kept
    return max(0, peak - before)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(question["threads"])
    (workload,) = select([question["workload"]], question["operation"])
    dtype = getattr(torch, question["dtype"])
    shape, run_pass = question["shape"], question["pass"]

    def make(shape: dict[str, Any]) -> Any:
        prepared = workload.prepare(shape, dtype, run_pass)
        makers = {"ours": prepared.ours, **prepared.peers, **prepared.parts}
        return makers[question["contender"]]()

    try:
        if shape.get("B", 1) > 16:  # libraries that load with the first call are not memory of the call
            make({**shape, "B": 16})()
        return {"bytes": peak_extra_memory(make(shape))}
    except Unavailable as error:
        return {"error": str(error)}
    except (MemoryError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def _serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                print(json.dumps(_answer(json.loads(line))), flush=True)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"error": f"the process that measured ended with status {status}"}), flush=True)


if __name__ == "__main__":
    _serve()
