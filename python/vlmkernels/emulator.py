"""Runs compiled CUDA kernels on the CPU.

``load`` reads PTX, the text that nvcc and Triton write, and gives a module; ``module.launch`` runs one of its kernels on numpy arrays and CPU
tensors and returns a report: what the kernel did wrong (accesses out of bounds, races, missing waits, ...) and what it did at all
(instructions by class, memory traffic, bank conflicts). See docs/emulator.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

try:
    from vlmkernels import _native as native
except ImportError as error:
    raise ImportError(f"vlmkernels.emulator needs the compiled module, which does not import: {error}") from error

__all__ = ["Finding", "Kernel", "Module", "Parameter", "Report", "load"]

Dims = int | Sequence[int]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: its PTX type and its place in the parameter block."""

    name: str
    type: str
    offset: int
    size: int
    align: int


@dataclass(frozen=True)
class Kernel:
    """What a module says about one of its kernels."""

    name: str
    parameters: tuple[Parameter, ...]
    parameter_bytes: int
    static_shared_bytes: int
    max_threads: int
    registers: int


@dataclass(frozen=True)
class Finding:
    """Something a kernel did wrong: the first occurrence of one kind at one instruction, and how many there were."""

    kind: str
    kernel: str
    ptx_line: int
    instruction: str
    source_file: str
    source_line: int
    message: str
    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    occurrences: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Report:
    """What a launch did. ``counters`` is empty of details when the launch did not count."""

    kernel: str
    findings: tuple[Finding, ...]
    counters: Mapping[str, Any]
    seconds: float
    completed: bool
    _summary: str = field(repr=False)

    def summary(self) -> str:
        return self._summary

    def raise_for_findings(self) -> None:
        """Raises RuntimeError with the summary if there is any finding."""
        if self.findings or not self.completed:
            raise RuntimeError(self._summary)


class Module:
    """A loaded PTX module."""

    def __init__(self, handle: native.EmulatorModule) -> None:
        self._handle = handle
        self.name: str = handle.name
        self.kernels: dict[str, Kernel] = {
            k["name"]: Kernel(**{**k, "parameters": tuple(Parameter(*p) for p in k["parameters"])})
            for k in handle.kernels()
        }

    def global_variable(self, name: str) -> tuple[int, int]:
        """Address and size in bytes of a .global or .const variable."""
        known = self._handle.globals()
        if name not in known:
            raise ValueError(f"module '{self.name}' has no variable '{name}'; it has {', '.join(known) or 'none'}")
        address, size, _ = known[name]
        return address, size

    def launch(
        self,
        kernel: str,
        grid: Dims,
        block: Dims,
        args: Sequence[Any],
        shared_bytes: int = 0,
        schedule: Literal["round_robin", "random"] = "round_robin",
        seed: int = 0,
        checks: bool = True,
        counters: bool = True,
        threads: int = 0,
        regions: Sequence[Any] = (),
    ) -> Report:
        """Runs ``kernel`` over ``grid`` blocks of ``block`` threads.

        ``args``, one for each parameter: a numpy array or CPU tensor (its address; the kernel may touch the elements' memory and nothing
        else), a Python number (by the parameter's type), or bytes (a struct). ``regions``: further arrays and tensors the kernel reaches
        through pointers inside structs. ``shared_bytes``: dynamic shared memory. ``schedule="random"`` interleaves the warps by ``seed``.
        Without ``checks`` addresses are used as they are: a wild one crashes the process. ``threads``: host threads, 0 for all.
        """
        if kernel not in self.kernels:
            raise ValueError(
                f"module '{self.name}' has no kernel '{kernel}'; it has {', '.join(self.kernels) or 'none'}"
            )
        info = self.kernels[kernel]
        if len(args) != len(info.parameters):
            raise ValueError(f"kernel '{kernel}' takes {len(info.parameters)} arguments, got {len(args)}")
        params = bytearray(info.parameter_bytes)
        memory: list[tuple[int, int, str, bool]] = []
        for i, (value, parameter) in enumerate(zip(args, info.parameters, strict=True)):
            name = f"args[{i}]"
            packed = _pack(value, parameter, name, memory)
            params[parameter.offset : parameter.offset + parameter.size] = packed
        for i, value in enumerate(regions):
            found = _allocation(value, f"regions[{i}]")
            if found is None:
                raise TypeError(f"regions[{i}] must be a numpy array or a CPU tensor, got {type(value).__name__}")
            memory.append(found)
        raw = self._handle.launch(
            kernel,
            bytes(params),
            _dims(grid, "grid"),
            _dims(block, "block"),
            shared_bytes,
            schedule,
            seed,
            checks,
            counters,
            threads,
            [region for region in memory if region[1] > 0],
        )
        return Report(
            kernel=raw["kernel"],
            findings=tuple(Finding(**f) for f in raw["findings"]),
            counters=raw["counters"],
            seconds=raw["seconds"],
            completed=raw["completed"],
            _summary=raw["summary"],
        )


def load(text_or_path: str | os.PathLike[str]) -> Module:
    """Reads a PTX module from its text or from a file.

    ``NotImplementedError`` names the line and the instruction the emulator does not know; ``ValueError`` the line that is not PTX.
    """
    if isinstance(text_or_path, str) and "\n" in text_or_path:
        return Module(native.emulator_load(text_or_path, "ptx"))
    path = Path(text_or_path)
    if not path.is_file():
        raise FileNotFoundError(f"no PTX file '{path}'; PTX text itself has more than one line")
    return Module(native.emulator_load(path.read_text(), path.stem))


def _dims(value: Dims, name: str) -> tuple[int, int, int]:
    sizes = (value,) if isinstance(value, int) else tuple(value)
    if not 1 <= len(sizes) <= 3 or any(not 1 <= size < 2**32 for size in sizes):
        raise ValueError(f"{name} must be one to three positive numbers, got {value!r}")
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z


def _allocation(value: Any, name: str) -> tuple[int, int, str, bool] | None:
    """Address, bytes, name and whether it may be written, of an array or tensor; None for anything else."""
    if hasattr(value, "__array_interface__") and not hasattr(value, "data_ptr"):
        interface = value.__array_interface__
        address, read_only = interface["data"]
        sizes = interface["shape"]
        item = int(value.dtype.itemsize)
        strides = interface.get("strides")
        steps = value.strides if strides is None else strides
        return (*_extent(address, sizes, steps, item), name, not read_only)
    if hasattr(value, "data_ptr"):
        if value.device.type != "cpu":
            raise ValueError(f"{name} is on {value.device}; the emulator runs on CPU memory: use .cpu()")
        item = value.element_size()
        return (*_extent(value.data_ptr(), value.shape, [s * item for s in value.stride()], item), name, True)
    return None


def _extent(address: int, sizes: Sequence[int], strides: Sequence[int], item: int) -> tuple[int, int]:
    if any(size == 0 for size in sizes):
        return address, 0
    steps = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
    low = sum(step for step in steps if step < 0)
    return address + low, sum(abs(step) for step in steps) + item


_FORMATS = {"f32": "<f", "f64": "<d", "f16": "<e"}


def _pack(value: Any, parameter: Parameter, name: str, memory: list[tuple[int, int, str, bool]]) -> bytes:
    """The bytes of an argument; an array or tensor is added to the memory the kernel may touch."""
    size = parameter.size
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) != size:
            raise ValueError(f"{name} has {len(value)} bytes; parameter '{parameter.name}' has {size}")
        return bytes(value)
    if isinstance(value, bool | int | float):
        if parameter.type in _FORMATS and size == struct.calcsize(_FORMATS[parameter.type]):
            return struct.pack(_FORMATS[parameter.type], value)
        if isinstance(value, float):
            if parameter.type == "b32":  # LLVM gives every parameter a type without meaning
                return struct.pack("<f", value)
            if parameter.type == "b64":
                return struct.pack("<d", value)
            raise TypeError(f"{name} is a float; parameter '{parameter.name}' is .{parameter.type}: pass an int")
        if size > 8:
            raise TypeError(f"{name} is a number; parameter '{parameter.name}' is a struct of {size} bytes: pass bytes")
        if not -(1 << (8 * size - 1)) <= value < 1 << (8 * size):
            raise ValueError(f"{name} = {value} does not fit parameter '{parameter.name}' of {size} bytes")
        return (int(value) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    found = _allocation(value, name)
    if found is not None:
        if getattr(value, "shape", None) == () and hasattr(value, "dtype") and not hasattr(value, "data_ptr"):
            raise TypeError(f"{name} is a numpy scalar: pass a Python number or a one-element array")
        if size != 8:
            raise TypeError(f"{name} is an array; parameter '{parameter.name}' has {size} bytes, a pointer has 8")
        memory.append(found)
        return (value.data_ptr() if hasattr(value, "data_ptr") else value.__array_interface__["data"][0]).to_bytes(
            8, "little"
        )
    if value is None and size == 8:
        return bytes(8)
    raise TypeError(
        f"{name} must be a numpy array, a CPU tensor, a number, bytes or None (a null pointer), got {type(value).__name__}"
    )
