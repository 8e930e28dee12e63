"""What is measured: workloads, and the contenders that compute them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlmkernels.bench.shapes import Shape

__all__ = ["PASSES", "Call", "Prepared", "Unavailable", "Workload", "grad_pass", "seeded_generator"]

PASSES = ("forward", "backward", "forward+backward")

#: Computes everything once and returns its outputs.
Call = Callable[[], tuple[Tensor, ...]]


class Unavailable(Exception):
    """Why a peer cannot run here; it is named as missing with these words."""


@dataclass
class Prepared:
    """A workload with its inputs in one dtype.

    `ours` is a factory of our call, `peers` those of other ways to the same outputs; the one named `yardstick` is PyTorch's own, which the accuracy rule allows a
    multiple of the error of. `parts` have other outputs, which are not compared. A factory raises :class:`Unavailable` where its peer is missing. `exact` computes
    the float64 values of what `sample` takes from the outputs (a head of many, an image of many); `outputs` names them, gradients as "grad ...".
    """

    ours: Callable[[], Call]
    peers: dict[str, Callable[[], Call]]
    exact: Callable[[], tuple[Tensor, ...]]
    outputs: tuple[str, ...]
    yardstick: str
    flops: float
    bytes: float
    formula: str
    sample: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = lambda outputs: outputs
    parts: dict[str, Callable[[], Call]] = field(default_factory=dict)
    #: of a part; 0 where the parts differ
    part_flops: float = 0.0
    #: images or sequences a call, where a rate of them is worth a column
    items: int = 0


@dataclass(frozen=True)
class Workload:
    """A named shape of an operation. `bound` is what limits it: "compute" (FLOP/s of the dtype), "read" (bytes from memory) or "host" (neither)."""

    name: str
    operation: str
    shape: Shape
    prepare: Callable[[Shape, torch.dtype, str], Prepared]
    passes: tuple[str, ...]
    flops: Callable[[Shape, str], float]
    bound: str = "compute"
    memory: bool = False  # peak extra memory is part of what is shown
    peers: tuple[str, ...] = ()  # names `prepare` offers, the ones shown by default first
    default_peers: tuple[str, ...] = ()
    gpu_peers: tuple[str, ...] = ()  # shown by default on a GPU, where they are others
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)
    kernels: str = ""  # what backends know the operation by, where it is not its own name
    sweep: dict[str, Any] | None = None  # series, axis and value, for a point of a scaling curve

    @property
    def kernel_name(self) -> str:
        return self.kernels or self.operation

    def scaled(self, dtype_flops: float, seconds: float, run_pass: str) -> tuple[Shape, str]:
        """The shape with its batch reduced so that a call takes about `seconds` at `dtype_flops`, and what was done, in words."""
        batch = self.shape.get("B", 1)
        if self.operation == "contrastive" or batch == 1:  # the batch of a loss is the problem itself
            return self.shape, ""
        expected = self.flops(self.shape, run_pass) / dtype_flops
        smaller = max(1, min(batch, int(batch * seconds / expected))) if expected > seconds else batch
        return {**self.shape, "B": smaller}, "" if smaller == batch else f"batch {batch} scaled down to {smaller}"

    def describe(self) -> str:
        return ", ".join(f"{key} {_plain(value)}" for key, value in self.shape.items() if key != "name")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(str(v) for v in value)
    if isinstance(value, dict):
        return " ".join(f"{k} {v}" for k, v in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def seeded_generator() -> torch.Generator:
    """Of inputs on the default device, the same in every process."""
    return torch.Generator(torch.get_default_device()).manual_seed(0)


def grad_pass(
    forward: Callable[[], tuple[Tensor, ...]], leaves: list[Tensor], grads: list[Tensor], run_pass: str
) -> Call:
    """`forward` alone without autograd, with its backward pass, or the backward pass alone over a graph that is kept.

    Forward returns its outputs, the others append (or return only) the gradients of `leaves` with `grads` flowing into the outputs.
    """
    if run_pass == "forward":
        return torch.no_grad()(forward)

    def both() -> tuple[Tensor, ...]:
        with torch.enable_grad():
            outputs = forward()
            found = torch.autograd.grad(outputs, leaves, grads)
        return (*(output.detach() for output in outputs), *found)

    if run_pass == "forward+backward":
        return both
    with torch.enable_grad():
        kept = forward()
    return functools.partial(torch.autograd.grad, kept, leaves, grads, retain_graph=True)
