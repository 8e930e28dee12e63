"""The ceilings of this machine, measured by a routine of the compiled module for the instruction set in use.

A ceiling is the best of several readings: what disturbs a reading only ever lowers it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vlmkernels import backends

__all__ = ["CeilingSettings", "Ceilings", "bandwidth_buffer_bytes", "measure_ceilings"]


@dataclass(frozen=True)
class CeilingSettings:
    """A reading takes about `seconds`; the best of `readings` counts. Memory is read from a buffer of `buffer_bytes` (None: much larger than the last cache), torch's
    own product is `product` wide."""

    readings: int = 7
    seconds: float = 0.05
    buffer_bytes: int | None = None
    product: int = 384


@dataclass(frozen=True)
class Ceilings:
    """Of one number of threads. FLOP/s, powers a second, bytes a second; `bf16_dot` (vectors) and `bf16_tiles` (tile registers) are None where the instruction set has no
    such instruction: bf16 without either is widened to fp32, and its ceiling is that of fp32, as fp16's is everywhere. `torch_product` is no ceiling but a yardstick for threads: FLOP/s of torch's own square products."""

    isa: str
    threads: int
    multiply_add: float
    bf16_dot: float | None
    bf16_tiles: float | None
    exp2: float
    read: float
    copy: float
    torch_product: dict[str, float]

    def flops(self, dtype: torch.dtype) -> tuple[str, float]:
        """Name and FLOP/s of the ceiling for arithmetic on a dtype."""
        if dtype == torch.bfloat16:
            for name, ceiling in (("bf16 tiles", self.bf16_tiles), ("bf16 dot", self.bf16_dot)):
                if ceiling is not None:
                    return name, ceiling
        return "FMA", self.multiply_add

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_DEFAULT = CeilingSettings()


def _last_level_cache() -> int:
    """Bytes of the largest cache of the first core, 32 MiB where the system does not say."""
    largest = 0
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = size.read_text().strip()
        factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
        digits = text.rstrip("KMG")
        largest = max(largest, int(digits) * factor if digits.isdigit() else 0)
    return largest or 32 * 2**20


def bandwidth_buffer_bytes() -> int:
    """Much larger than the last cache, and no more than an eighth of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(256 * 2**20, 8 * _last_level_cache()), max(2**20, memory // 8))


def _best(run: Callable[[], tuple[float, float]], readings: int) -> float:
    rates = []
    for _ in range(readings):
        work, seconds = run()
        rates.append(work / seconds if seconds > 0 else 0.0)
    return max(rates)


def _compute(routine: Callable[[int, int], tuple[float, float]], threads: int, settings: CeilingSettings) -> float:
    """The rate over rounds of about the seconds set; 0 where the routine has nothing to do. One thread tells how many rounds: waking others takes time of its own."""
    rounds = 1000
    while True:
        work, taken = routine(rounds, 1)
        if work == 0:
            return 0.0
        if taken >= settings.seconds / 4 or rounds >= 2**40:
            break
        rounds *= 2
    rounds = max(1, int(rounds * settings.seconds / max(taken, 1e-9)))
    return _best(lambda: routine(rounds, threads), settings.readings)


def measure_ceilings(threads: int, settings: CeilingSettings = _DEFAULT) -> Ceilings:
    """Measures all ceilings on `threads` threads."""
    native = backends.native
    if native is None:
        raise RuntimeError(f"ceilings are measured by the compiled module: {backends.native_error}")
    count = (settings.buffer_bytes or bandwidth_buffer_bytes()) // 4
    source, target = torch.ones(count), torch.zeros(count // 2)
    return Ceilings(
        isa=native.active_isa(),
        threads=threads,
        multiply_add=_compute(native.ceiling_multiply_add, threads, settings),
        bf16_dot=_compute(native.ceiling_bf16_dot, threads, settings) or None,
        bf16_tiles=_compute(native.ceiling_bf16_tiles, threads, settings) or None,
        exp2=_compute(native.ceiling_exp2, threads, settings),
        read=_best(lambda: native.ceiling_read(source, threads), settings.readings),
        copy=_best(lambda: native.ceiling_copy(target, source[: count // 2], threads), settings.readings),
        torch_product={str(dtype).removeprefix("torch."): _torch_product(dtype, threads, settings) for dtype in (torch.float32, torch.bfloat16)},
    )  # fmt: skip


def _torch_product(dtype: torch.dtype, threads: int, settings: CeilingSettings) -> float:
    size = settings.product
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))

        def run() -> tuple[float, float]:
            started = time.perf_counter()
            a @ b
            return 2.0 * size**3, time.perf_counter() - started

        return _best(run, min(settings.readings, 3))
    finally:
        torch.set_num_threads(before)
