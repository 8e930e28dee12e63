"""Where numbers come from: the machine, the versions, and what else could have been compared."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import vlmkernels
from vlmkernels import backends

__all__ = ["describe_machine"]

_PACKAGES = ("transformers", "onnxruntime", "openvino")


def describe_machine() -> dict[str, Any]:
    """Plain data for the JSON and the page."""
    native = backends.native
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vlmkernels": vlmkernels.__version__,
        "instruction_set": native.active_isa() if native is not None else None,
        "instruction_sets": native.available_isas() if native is not None else [],
        "emulated_avx512": bool(native.build["emulated_avx512"]) if native is not None else False,
        "compiler": native.build["compiler"] if native is not None else None,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = {}
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        model = fields.get("model name") or fields.get("Model") or platform.machine()
        family, number = fields.get("cpu family"), fields.get("model")
        return f"{model} (family {family}, model {number})" if family and number else model
    return platform.processor() or platform.machine()
