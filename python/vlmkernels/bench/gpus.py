"""What a kernel gets of the multiprocessors of some GPUs: blocks at a time, and how many times over a grid fills them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPUS", "Gpu", "Occupancy"]

_KB = 1024
# The same on every architecture from 8.0 to 12.0 (cuda_occupancy.h of CUDA 13).
_REGISTERS, _REGISTER_UNIT, _PARTITIONS, _LANES = 65536, 256, 4, 32
_SHARED_UNIT, _SYSTEM_SHARED = 128, 1 * _KB  # of every block, for the system


@dataclass(frozen=True)
class Occupancy:
    """`blocks` of a multiprocessor at a time, `limit` what keeps it from more; `waves`: how many times the grid fills the GPU."""

    blocks: int
    limit: str
    waves: float


@dataclass(frozen=True)
class Gpu:
    """Limits of a multiprocessor are those of its compute capability; the number of multiprocessors is the product's."""

    name: str
    architecture: int
    multiprocessors: int
    shared_bytes: int  # of a multiprocessor
    block_shared_bytes: int
    warps: int
    blocks: int

    def occupancy(self, grid: int, threads: int, registers: int, shared_bytes: int) -> Occupancy:
        """Of a kernel with so many registers a thread, and so much shared memory a block, static and dynamic."""
        warps = _up(threads, _LANES) // _LANES
        warp_registers = _up(registers * _LANES, _REGISTER_UNIT)
        shared = _up(shared_bytes + _SYSTEM_SHARED, _SHARED_UNIT)
        limits = {
            "registers": _REGISTERS // _PARTITIONS // warp_registers * _PARTITIONS // warps if registers else self.blocks,
            "shared memory": self.shared_bytes // shared,
            "warps": self.warps // warps,
            "blocks": self.blocks,
        }  # fmt: skip
        limit = min(limits, key=lambda name: limits[name])
        blocks = limits[limit]
        return Occupancy(blocks, limit, grid / (blocks * self.multiprocessors) if blocks else float("inf"))


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


#: Shared memory, warps and blocks: the CUDA programming guide's table of compute capabilities and cuda_occupancy.h. Multiprocessors: NVIDIA's architecture papers
#: of the A100 (SXM4), H100 (SXM5), RTX 4090 and RTX 5090.
GPUS = (
    Gpu("A100", 80, 108, 164 * _KB, 163 * _KB, 64, 32),
    Gpu("H100", 90, 132, 228 * _KB, 227 * _KB, 64, 32),
    Gpu("RTX 4090", 89, 128, 100 * _KB, 99 * _KB, 48, 24),
    Gpu("RTX 5090", 120, 170, 100 * _KB, 99 * _KB, 48, 24),
)
