"""The compiled CUDA kernels that ship with the package: which there are, and for which GPUs.

Every ``csrc/<operation>/<name>.cu`` is two files ``<operation>/<name>`` in the package: ``.fatbin``, what the driver loads, with machine code for several
architectures and PTX for later ones; ``.ptx``, the text that machine code was made from, with source lines, which the emulator runs; and ``.json``, the registers
and the shared memory that each kernel takes on each architecture.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "OPERATIONS", "Image", "Resources", "images", "missing", "resources"]


def _folder() -> Path:
    """Beside the compiled module, which an editable install keeps elsewhere than the Python sources."""
    module = importlib.util.find_spec("vlmkernels._native")
    return Path(module.origin if module and module.origin else __file__).parent / "kernels"


FOLDER = _folder()

_LOSSES = (
    "contrastive/loss_bfloat16",
    "contrastive/loss_float16",
    "contrastive/loss_float32",
    "contrastive/merge",
)

#: Operations with CUDA kernels, and the images each one cannot run without.
OPERATIONS = {
    "attention": (
        "attention/forward_bfloat16",
        "attention/forward_float16",
        "attention/forward_float32",
        "attention/combine",
        "attention/backward_bfloat16",
        "attention/backward_float16",
        "attention/backward_float32",
    ),
    "merge_attention": ("merge_attention/merge",),
    "contrastive": _LOSSES,
    "sigmoid": _LOSSES,
    "patch_embed": tuple(
        f"patch_embed/{direction}_{dtype}"
        for direction in ("forward", "backward")
        for dtype in ("bfloat16", "float16", "float32")
    ),
}

# The layout of a fatbin: a header, then entries of a header and a payload each.
_HEADER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes that follow
_ENTRY = struct.Struct("<HHIQ12xI")  # kind, version, bytes of this header, bytes of the payload, ..., architecture
_MAGIC = 0xBA55ED50
_PTX, _MACHINE_CODE = 1, 2


@dataclass(frozen=True)
class Image:
    """One .cu file, compiled."""

    name: str
    kernels: tuple[str, ...]
    machine_code: tuple[int, ...]  # compute capabilities, 80 for 8.0
    ptx: tuple[int, ...]  # compiled by the driver for these and later ones
    ptx_version: str
    bytes: int


def missing(operation: str) -> str:
    """Why the package has no CUDA kernels of `operation`; empty if it has them."""
    if operation not in OPERATIONS:
        return f"there is no CUDA kernel for {operation} yet"
    for image in OPERATIONS[operation]:
        if not (FOLDER / f"{image}.fatbin").exists():
            return f"this build has no CUDA kernels ({image} is missing): reinstall with VLMKERNELS_CUDA=ON"
    return ""


@dataclass(frozen=True)
class Resources:
    """What the machine code of a kernel takes."""

    registers: int  # of a thread
    spill_bytes: int
    static_shared_bytes: int


@functools.cache
def resources(image: str) -> dict[tuple[str, int], Resources]:
    """By kernel and architecture (80 for 8.0), as the compiler reported it; empty where the build kept no report."""
    path = FOLDER / f"{image}.json"
    entries = json.loads(path.read_text()) if path.is_file() else []
    return {
        (entry.pop("kernel"), int(entry.pop("architecture").removeprefix("sm_"))): Resources(**entry)
        for entry in entries
    }


def images() -> list[Image]:
    """Every image of the package, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*/*.fatbin"))]


def _read(fatbin: Path) -> Image:
    ptx = fatbin.with_suffix(".ptx")
    text, data = ptx.read_text(), fatbin.read_bytes()
    entries = _entries(data)
    version = re.search(r"^\.version\s+(\S+)", text, re.MULTILINE)
    return Image(
        fatbin.relative_to(FOLDER).with_suffix("").as_posix(),
        tuple(re.findall(r"\.entry\s+(\w+)", text)),
        tuple(sorted(arch for kind, arch in entries if kind == _MACHINE_CODE)),
        tuple(sorted(arch for kind, arch in entries if kind == _PTX)),
        version[1] if version else "unknown",
        len(data) + ptx.stat().st_size,
    )


def _entries(data: bytes) -> list[tuple[int, int]]:
    magic, _, start, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("not a fatbin")
    found = []
    while start + _ENTRY.size <= len(data):
        kind, _, header, payload, arch = _ENTRY.unpack_from(data, start)
        found.append((kind, arch))
        start += header + payload
    return found
