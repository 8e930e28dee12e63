"""All workloads by name."""

from __future__ import annotations

from vlmkernels.bench.attention import attention_workloads
from vlmkernels.bench.contrastive import contrastive_workloads
from vlmkernels.bench.host import host_workloads
from vlmkernels.bench.models import model_workloads
from vlmkernels.bench.packed import packed_workloads
from vlmkernels.bench.patch_embed import patch_workloads
from vlmkernels.bench.scaling import sweep_workloads
from vlmkernels.bench.workload import Workload

__all__ = ["OPERATIONS", "all_workloads", "select"]

OPERATIONS = ("attention", "patch_embed", "contrastive", "model", "host")


def all_workloads(gpu: bool = False) -> list[Workload]:
    """On a `gpu`, or for one; models and the overhead of calls are measured on the CPU alone."""
    operations = [
        *attention_workloads(),
        *packed_workloads(),
        *patch_workloads(),
        *contrastive_workloads(gpu),
    ]
    return operations if gpu else [*operations, *model_workloads(), *host_workloads()]


def select(names: list[str], operation: str | None, gpu: bool = False) -> list[Workload]:
    """Workloads of these names, of all operations a name occurs in, or of one operation; everything but the models when nothing is asked for. Points of scaling curves
    have names too.

    Raises:
        ValueError: for a name that no workload has.
    """
    found = [w for w in all_workloads(gpu) if operation is None or w.operation == operation]
    if not names:
        return [w for w in found if operation is not None or w.operation != "model"]
    found += [w for w in sweep_workloads() if operation is None or w.operation == operation]
    unknown = [name for name in names if all(w.name != name for w in found)]
    if unknown:
        raise ValueError(
            f"no workload is called {', '.join(unknown)}; `vlmkernels bench --list` shows "
            + ("the names" if operation is None else f"the names of --op {operation}")
        )
    return [w for w in found if w.name in names]
