"""The accuracy rule: against float64, the error is at most twice that of PyTorch's own kernels in the same dtype (gradients three times), plus the rounding noise of
the output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Finding", "compare"]

FORWARD_FACTOR, GRADIENT_FACTOR = 2.0, 3.0


@dataclass(frozen=True)
class Finding:
    """What one tensor of one case looked like: its largest error, the error allowed, and the element where the two are furthest apart."""

    quantity: str
    error: float
    allowed: float
    index: tuple[int, ...]
    found: float
    exact: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        return (
            f"{self.quantity}: error {self.error:.3g}, allowed {self.allowed:.3g}: {verdict}; "
            f"worst at {self.index}: {self.found:.9g} instead of {self.exact:.9g}"
        )


def compare(quantity: str, found: Tensor, peer: Tensor, exact: Tensor, *, gradient: bool = False) -> Finding:
    """`found` in its dtype and PyTorch's `peer` in the same one, both against float64. Infinities must be where the exact ones are; NaN never passes."""
    if found.shape != exact.shape:
        return Finding(
            f"{quantity} has shape {tuple(found.shape)} instead of {tuple(exact.shape)}",
            float("inf"),
            0.0,
            (),
            0.0,
            0.0,
        )
    if exact.numel() == 0:
        return Finding(quantity, 0.0, 0.0, (), 0.0, 0.0)
    error = _errors(found, exact)
    peer_error = _errors(peer, exact)
    finite = exact[exact.isfinite()].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    usual = finite.square().mean().sqrt().item() if finite.numel() else 0.0
    # Half a unit in the last place of each element, and of the terms that were summed: their size is that of a typical element.
    noise = torch.finfo(found.dtype).eps * max(largest, usual) + 4 * torch.finfo(torch.float32).eps * usual
    factor = GRADIENT_FACTOR if gradient else FORWARD_FACTOR
    seen = peer_error[peer_error.isfinite()]
    allowed = factor * (seen.max().item() if seen.numel() else 0.0) + noise + torch.finfo(found.dtype).tiny
    worst = int(error.argmax())
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), error.shape)) if error.dim() else ()
    return Finding(
        quantity, error.max().item(), allowed, where, found.flatten()[worst].item(), exact.flatten()[worst].item()
    )


def _errors(found: Tensor, exact: Tensor) -> Tensor:
    """|found - exact|, 0 where both are the same infinity, infinite where only one is, or one is NaN."""
    error = (found.double() - exact).abs()
    error = torch.where(found.double() == exact, 0.0, error)
    return torch.where(error.isnan(), float("inf"), error)
