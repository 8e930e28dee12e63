"""What to run for the bars and for the scaling curves."""

from __future__ import annotations

from dataclasses import replace

import torch

from vlmkernels.bench.catalog import all_workloads
from vlmkernels.bench.run import Plan
from vlmkernels.bench.scaling import AXES, sweep_workloads
from vlmkernels.bench.suite import Job

__all__ = ["bar_jobs", "scaling_jobs"]


def bar_jobs(plan: Plan) -> list[Job]:
    """Everything the bars are evaluated on, in the dtypes and threads of the plan."""
    forward = replace(plan, passes=("forward",))
    wide = tuple(dtype for dtype in plan.dtypes if dtype != torch.float16)
    gradients = replace(plan, passes=("backward", "forward+backward"), dtypes=wide)
    both = replace(plan, passes=("forward", "backward"), dtypes=wide)
    jobs: list[Job] = []
    for workload in all_workloads():
        if workload.operation == "attention":
            jobs.append((workload, forward))
            if workload.bound == "compute" and "Sq" in workload.shape:
                jobs.append((workload, gradients))
        elif workload.operation == "patch_embed":
            jobs.append((workload, both))
        elif workload.operation == "contrastive":
            jobs.append((workload, replace(plan, passes=("forward+backward",), dtypes=wide)))
        elif workload.operation == "host":
            jobs.append((workload, forward))
    alone = replace(forward, dtypes=wide, peers=(), memory="none")
    sweeps = [w for axis in ("S", "B") for w in sweep_workloads(axis) if w.operation != "contrastive"]
    return jobs + [(workload, alone) for workload in sweeps]


def scaling_jobs(axis: str, plan: Plan) -> list[Job]:
    """The curves over one axis, or all."""
    axes = AXES if axis == "all" else (axis,)
    return [(workload, plan) for a in axes for workload in sweep_workloads(a)]
