"""Times on a GPU: calls as CUDA graphs, replayed in turns over a cold L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vlmkernels.bench.timing import Times
from vlmkernels.bench.workload import Call

__all__ = ["GraphClock", "replayed"]

_WARM_UP = 3
#: More than any L2 cache. Overwritten before each replay, so that inputs come from memory.
_FLUSH_BYTES = 256 << 20


def replayed(
    calls: dict[str, Call], samples: int, capture: Callable[[Call], Any], seconds: Callable[[Any], float]
) -> tuple[dict[str, Times], dict[str, str]]:
    """Each call is captured once; every round replays each of them once. Why a call cannot be captured is told instead; ours must be."""
    graphs: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name, call in calls.items():
        try:
            graphs[name] = capture(call)
        except Exception as error:  # whatever a peer's library raises
            if name == "ours":
                raise
            failed[name] = f"not in a CUDA graph: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(samples):
        for name, graph in graphs.items():
            taken[name].append(seconds(graph))
    return {name: Times.of(found) for name, found in taken.items()}, failed


class GraphClock:
    """Works on a stream of its own, which must be the current one when calls are made: a backward pass runs on the stream of its forward pass."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.stream = torch.cuda.Stream()
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def __call__(self, calls: dict[str, Call]) -> tuple[dict[str, Times], dict[str, str]]:
        return replayed(calls, self.samples, self._capture, self._seconds)

    def _capture(self, call: Call) -> torch.cuda.CUDAGraph:
        for _ in range(_WARM_UP):
            call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            call()
        return graph

    def _seconds(self, graph: torch.cuda.CUDAGraph) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3
