"""`vlmkernels verify`: the grid of cases as a table; exit status 1 if anything is off."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmkernels.verify import Case

__all__ = ["run_verify"]


def run_verify(quick: bool, seed: int, backend: str | None) -> int:
    """Runs every case in every dtype; prints a line an operation and dtype, and every failure with its worst element."""
    import torch

    from vlmkernels import backends
    from vlmkernels.verify import cases, check_accuracy, check_repeatable

    started = time.perf_counter()
    isa = backends.native.active_isa() if backends.native is not None else "no compiled module"
    print(
        f"seed {seed}, torch {torch.__version__}, backend {backend or 'best'}, instruction set {isa}, {torch.get_num_threads()} threads"
    )
    print("error: the largest share of the error allowed by the accuracy rule (1 is the limit)\n")
    print(f"{'operator':<20}{'dtype':<10}{'cases':>6}{'error':>8}  {'worst case':<34}{'bits':<12}verdict")
    everything, refused = _able(list(cases(quick)), backend)
    # Kernels for a GPU are checked on its own tensors.
    device = "cuda" if backend == "cuda" and torch.cuda.is_available() else "cpu"
    failures: list[str] = []
    with backends.use_backend(backend) if backend else contextlib.nullcontext():
        for operation in dict.fromkeys(case.operation for case in everything):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                name = str(dtype).removeprefix("torch.")
                own = [case for case in everything if case.operation == operation]
                worst, where, bad, changed = 0.0, "", 0, 0
                for case in own:
                    for finding in check_accuracy(case, dtype, seed, device):
                        share = finding.error / finding.allowed if finding.allowed else float(finding.error > 0)
                        if share >= worst:
                            worst, where = share, f"{case.name}: {finding.quantity}"
                        if not finding.passed:
                            bad += 1
                            failures.append(f"{case} {name} {finding}")
                    moved = [] if case.name.startswith("head dim") else check_repeatable(case, dtype, seed, device)
                    if moved:
                        changed += 1
                        failures.append(f"{case} {name}: the bits of {', '.join(moved)} change from run to run")
                verdict = "FAILED" if bad or changed else "ok"
                bits = f"{changed} change" if changed else "the same"
                print(
                    f"{operation:<20}{name:<10}{len(own):>6}{worst:>8.2f}  {where:<34}{bits:<12}{verdict}", flush=True
                )
    for operation, why in refused.items():
        print(f"{operation:<20}not checked: {why}")
    if not everything:
        print(f"\nthe {backend} backend runs nothing here")
        return 1
    print(f"\n{len(failures)} failures in {time.perf_counter() - started:.1f} s")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


def _able(everything: list[Case], backend: str | None) -> tuple[list[Case], dict[str, str]]:
    """The cases a requested backend can run, and for each operation it cannot, why."""
    import torch

    from vlmkernels import backends
    from vlmkernels.cli.info import OPERATIONS

    if backend is None:
        return everything, {}
    device = "cuda" if backend == "cuda" and torch.cuda.is_available() else "cpu"
    refused = {}
    for operation in dict.fromkeys(case.operation for case in everything):
        if against := backends.reasons(backend, OPERATIONS[operation], device, torch.float32):
            refused[operation] = "; ".join(against)
    return [case for case in everything if case.operation not in refused], refused
