"""Which backend serves a call, and why not another.

A backend answers with the list of reasons why it cannot serve an operation on a device and dtype; an empty list means it can. ``choose`` takes the first
that can, in the order cpu, reference. Falling back to the reference warns once with the reason, or raises with ``VLMKERNELS_STRICT=1``.
``VLMKERNELS_BACKEND=reference|cpu`` or :func:`use_backend` asks for one explicitly.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

import torch

__all__ = ["BACKENDS", "choose", "native", "reasons", "use_backend"]

BACKENDS = ("cpu", "reference")
_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _import_native() -> tuple[ModuleType | None, str]:
    try:
        from vlmkernels import _native
    except ImportError as error:
        return (
            None,
            f"the compiled module vlmkernels._native does not import ({error}); reinstall vlmkernels with a C++ compiler present",
        )
    except ValueError as error:  # VLMKERNELS_CPU_ISA names a set this machine lacks
        return None, str(error)
    return _native, ""


#: The compiled module, or None; `native_error` then says why.
native, native_error = _import_native()

_requested: str | None = os.environ.get("VLMKERNELS_BACKEND") or None
if _requested is not None and _requested not in (*BACKENDS, "auto"):
    raise ValueError(f"VLMKERNELS_BACKEND is {_requested!r}; use one of auto, {', '.join(BACKENDS)}")
if _requested == "auto":
    _requested = None


def kernels_allowed() -> bool:
    """True if the compiled module is there and nothing asks for another backend."""
    return native is not None and _requested in (None, "cpu")


_choices: dict[tuple[str, str, torch.dtype], str] = {}


def reasons(backend: str, operation: str, device: str, dtype: torch.dtype) -> list[str]:
    """Why `backend` cannot run `operation` on this device type and dtype; empty if it can."""
    if backend == "reference":
        return []
    found = []
    if device != "cpu":
        found.append(f"the cpu backend runs on CPU tensors and these are on {device}")
    if dtype not in _KERNEL_DTYPES:
        found.append(
            f"the kernels take float32, bfloat16 and float16, and these are {str(dtype).removeprefix('torch.')}"
        )
    if native is None:
        found.append(native_error)
    elif not found and not hasattr(native, operation + "_forward"):
        found.append(f"this build has no kernel for {operation}")
    return found


def choose(operation: str, device: str, dtype: torch.dtype) -> str:
    """Name of the backend that serves `operation` ("attention", "patch_embed", "contrastive") on tensors of this device type and dtype."""
    key = (operation, device, dtype)
    chosen = _choices.get(key)
    if chosen is None:
        chosen = _choices[key] = _decide(*key)
    return chosen


def _decide(operation: str, device: str, dtype: torch.dtype) -> str:
    if _requested is not None:
        against = reasons(_requested, operation, device, dtype)
        if against:
            raise RuntimeError(
                f"backend {_requested!r} was requested for {operation} but cannot run it: {'; '.join(against)}"
            )
        return _requested
    against = reasons("cpu", operation, device, dtype)
    if not against:
        return "cpu"
    message = f"{operation} runs on the slow reference backend: {'; '.join(against)}"
    if os.environ.get("VLMKERNELS_STRICT", "0") not in ("", "0"):
        raise RuntimeError(message + " (VLMKERNELS_STRICT is set)")
    warnings.warn(message, RuntimeWarning, stacklevel=4)
    return "reference"


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block every operation runs on the named backend ("cpu" or "reference"), or on the best one with None. Process-wide, not per thread."""
    global _requested
    if name is not None and name not in BACKENDS:
        raise ValueError(f"backend is {name!r}; use one of {', '.join(BACKENDS)} or None")
    before = _requested
    _requested = name
    _choices.clear()
    try:
        yield
    finally:
        _requested = before
        _choices.clear()
