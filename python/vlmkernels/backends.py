"""Which backend serves a call, and why not another.

A backend answers with the list of reasons why it cannot serve an operation on a device and dtype; an empty list means it can. ``choose`` takes the kernels of
the tensors' device, cpu or cuda, and else the reference. Falling back to the reference warns once with the reason, or raises with ``VLMKERNELS_STRICT=1``.
``VLMKERNELS_BACKEND=cpu|cuda|emulator|reference`` or :func:`use_backend` asks for one explicitly; "emulator" runs the CUDA kernels on CPU tensors, and is only ever
used on request.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch

from vlmkernels import images

__all__ = ["BACKENDS", "choose", "emulation", "execution", "native", "reasons", "use_backend"]

BACKENDS = ("cpu", "cuda", "emulator", "reference")
#: Shared memory of a block of compute capability 9.0, of which no GPU has more, and the multiprocessors of an H100.
MOST_SHARED_BYTES = 227 * 1024
MULTIPROCESSORS = 132
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


def kernels_allowed(backend: str) -> bool:
    """True if the compiled module is there and nothing asks for another backend."""
    return native is not None and _requested in (None, backend)


class EmulatedLaunch(NamedTuple):
    """One kernel launch on the emulator: its plan (image, kernel, grid, block, shared_bytes, parameters), and what :class:`vlmkernels.emulator.Report` holds:
    findings, counters, seconds and the summary that ``vlmkernels profile`` prints."""

    plan: dict[str, Any]
    report: dict[str, Any]


_choices: dict[tuple[str, str, torch.dtype], str] = {}


def reasons(backend: str, operation: str, device: str, dtype: torch.dtype) -> list[str]:
    """Why `backend` cannot run `operation` on this device type and dtype; empty if it can."""
    if backend == "reference":
        return []
    found = []
    if backend != "cuda" and device != "cpu":
        found.append(f"the {backend} backend runs on CPU tensors and these are on {device}")
    if dtype not in _KERNEL_DTYPES:
        found.append(
            f"the kernels take float32, bfloat16 and float16, and these are {str(dtype).removeprefix('torch.')}"
        )
    if native is None:
        return [*found, native_error]
    if backend == "cpu":
        if not found and not hasattr(native, operation + "_forward"):
            found.append(f"this build has no kernel for {operation}")
        return found
    if why := images.missing(operation):
        found.append(why)
    if backend == "cuda" and not found:
        found += _driver_reasons(device)
    return found


def _driver_reasons(device: str) -> list[str]:
    if device not in ("cpu", "cuda"):
        return [f"the cuda backend runs on CUDA tensors and these are on {device}"]
    try:
        found = native.cuda_devices()  # type: ignore[union-attr]
    except native.DriverError as error:  # type: ignore[union-attr]
        return [str(error)]
    if device == "cpu" and not found["devices"][0]["pageable_memory"]:
        return ["the cuda backend runs on CUDA tensors and these are on cpu, whose memory this GPU does not reach"]
    return []


def execution(backend: str, tensor: torch.Tensor) -> tuple[str, int, int]:
    """The last arguments of a native call: which kernels run it, on how many threads, on which stream."""
    stream = torch._C._cuda_getCurrentRawStream(tensor.device.index) if tensor.is_cuda else 0
    return backend, torch.get_num_threads(), stream


def choose(operation: str, device: str, dtype: torch.dtype) -> str:
    """Name of the backend that serves `operation` ("attention", "merge_attention", "patch_embed", "contrastive") on tensors of this device type and dtype."""
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
    kernels = "cuda" if device == "cuda" else "cpu"
    against = reasons(kernels, operation, device, dtype)
    if not against:
        return kernels
    message = f"{operation} runs on the slow reference backend: {'; '.join(against)}"
    if os.environ.get("VLMKERNELS_STRICT", "0") not in ("", "0"):
        raise RuntimeError(message + " (VLMKERNELS_STRICT is set)")
    warnings.warn(message, RuntimeWarning, stacklevel=4)
    return "reference"


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block every operation runs on the named backend (one of BACKENDS), or on the best one with None. Process-wide, not per thread."""
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


@contextlib.contextmanager
def emulation(
    *,
    schedule: str = "round_robin",
    seed: int = 0,
    checks: bool = True,
    counters: bool = False,
    blocks: Callable[[dict[str, Any]], Sequence[int] | None] | None = None,
    shared_bytes: int = MOST_SHARED_BYTES,
    multiprocessors: int = MULTIPROCESSORS,
) -> Iterator[list[EmulatedLaunch]]:
    """Within the block the emulator backend runs kernels this way, and every launch is added to the list. Process-wide, not per thread.

    Args:
        schedule, seed: ``"random"`` interleaves warps by the seed.
        checks: report invalid memory accesses, races and the like as errors.
        counters: count what instructions do, for the summary of a launch.
        blocks: which blocks of a launch run, by their linear indices, given its plan; None is all of them. Results are incomplete with fewer.
        shared_bytes, multiprocessors: of the GPU that is emulated, which some plans depend on: shared memory that a block can have.
    """
    if native is None:
        raise RuntimeError(native_error)
    launches: list[EmulatedLaunch] = []
    native.set_emulation(schedule, seed, checks, counters, shared_bytes, multiprocessors)
    native.set_block_selection(blocks)
    native.set_report_listener(lambda *report: launches.append(EmulatedLaunch(*report)))
    try:
        yield launches
    finally:
        native.set_report_listener(None)
        native.set_block_selection(None)
        native.set_emulation("round_robin", 0, True, False, MOST_SHARED_BYTES, MULTIPROCESSORS)
