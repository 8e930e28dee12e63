"""Runs a case: on the backend in force, in PyTorch's own way, and in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.verify.grid import Case, Inputs
from vlmkernels.verify.rule import Finding, compare

__all__ = ["check_accuracy", "check_repeatable"]


def _prepare(case: Case, dtype: torch.dtype, seed: int, device: str) -> Inputs:
    inputs = case.inputs(torch.Generator().manual_seed(seed))
    return {name: _moved(value.to(dtype) if name in case.cast else value, device) for name, value in inputs.items()}


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


def _converted(case: Case, inputs: Inputs, dtype: torch.dtype | None) -> Inputs:
    """Fresh leaves; scalars of the losses stay fp32 unless everything is float64."""
    out: Inputs = dict(inputs)
    for name in {*case.cast, *case.grads} & set(inputs):
        value = inputs[name]
        out[name] = value if dtype is None and name in case.cast else value.to(dtype or torch.float32)
        out[name] = _same_strides(out[name].detach(), value).requires_grad_(name in case.grads)
    return out


def _same_strides(value: Tensor, like: Tensor) -> Tensor:
    return value.as_strided(value.shape, value.stride()) if value is like else value


def _evaluate(case: Case, call: Callable[..., tuple[Tensor, ...]], inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients; the gradients of the outputs are fixed random numbers."""
    outputs = call(**inputs, **case.options)
    if not case.grads:
        return [o.detach().cpu() for o in outputs], []
    generator = torch.Generator().manual_seed(1)
    total: Any = 0.0
    for output in outputs:
        weight = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.device)
        seen = torch.where(output.isfinite(), output, 0.0)
        total = total + (seen.double() * weight).sum()
    grads = torch.autograd.grad(total, [inputs[name] for name in case.grads])
    return [o.detach().cpu() for o in outputs], [g.cpu() for g in grads]


def check_accuracy(case: Case, dtype: torch.dtype, seed: int = 0, device: str = "cpu") -> list[Finding]:
    """One finding an output and a gradient, of tensors on this device; what they are held against is computed on the CPU."""
    found = _evaluate(case, case.call, _converted(case, _prepare(case, dtype, seed, device), None))
    inputs = _prepare(case, dtype, seed, "cpu")
    peer = _evaluate(case, case.peer, _converted(case, inputs, None))
    with backends.use_backend("reference"):
        exact = _evaluate(case, case.call, _converted(case, inputs, torch.float64))
    names = (case.outputs, [f"grad {name}" for name in case.grads])
    return [
        compare(name, f, p, e, gradient=bool(part))
        for part in (0, 1)
        for name, f, p, e in zip(names[part], found[part], peer[part], exact[part], strict=True)
    ]


def check_repeatable(case: Case, dtype: torch.dtype, seed: int = 0, device: str = "cpu") -> list[str]:
    """Names of outputs and gradients whose bits change from run to run or (attention, patch embedding) with the number of threads."""
    inputs = _prepare(case, dtype, seed, device)
    before = torch.get_num_threads()
    any_threads = "loss" not in case.operation
    changed: set[str] = set()
    names = [*case.outputs, *(f"grad {name}" for name in case.grads)]
    first: list[Tensor] | None = None
    try:
        for threads in (before, before, *((1, 3) if any_threads else ())):
            torch.set_num_threads(threads)
            outputs, grads = _evaluate(case, case.call, _converted(case, inputs, None))
            now = [*outputs, *grads]
            first = first or now
            changed |= {name for name, a, b in zip(names, first, now, strict=True) if not torch.equal(a, b)}
    finally:
        torch.set_num_threads(before)
    return sorted(changed)
