"""The result of running every tiny workload once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_workloads import QUICK, QUICK_CEILINGS, SHAPES, tiny

from vlmkernels.bench.run import Plan
from vlmkernels.bench.suite import run_suite


@pytest.fixture(scope="session")
def result() -> dict[str, Any]:
    """Every tiny workload in every dtype and pass, without memory (a process of its own each)."""
    plan = Plan(
        dtypes=(torch.float32, torch.bfloat16),
        threads=(1,),
        passes=("all",),
        memory="none",
        timing=QUICK,
    )
    jobs = [(tiny(name), plan) for name in SHAPES]
    jobs[0] = (jobs[0][0], replace(plan, threads=(1, 2)))
    return run_suite(jobs, "vlmkernels bench tiny", lambda line: None, QUICK_CEILINGS)
