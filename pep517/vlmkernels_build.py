"""The build backend: scikit-build-core's, which also asks for NVIDIA's compiler where CUDA kernels are wanted and the machine has none.

    VLMKERNELS_CUDA=ON pip install .        (or -C cmake.define.VLMKERNELS_CUDA=ON)

then needs no CUDA toolkit: pip puts the compiler's wheels into its temporary build environment, where cmake/cuda.cmake finds them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scikit_build_core import build as _scikit_build
from scikit_build_core.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

_VERSION = (13, 0)
_WHEELS = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime", "nvidia-cuda-cccl")

Settings = Mapping[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return [*_scikit_build.get_requires_for_build_wheel(config_settings), *_compiler(config_settings)]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return [*_scikit_build.get_requires_for_build_editable(config_settings), *_compiler(config_settings)]


def _compiler(config_settings: Settings) -> list[str]:
    if not _cuda_is_on(config_settings) or _machine_has_nvcc():
        return []
    return [f"{name}=={_VERSION[0]}.{_VERSION[1]}.*" for name in _WHEELS]


def _cuda_is_on(config_settings: Settings) -> bool:
    value = (config_settings or {}).get("cmake.define.VLMKERNELS_CUDA", os.environ.get("VLMKERNELS_CUDA", "AUTO"))
    if isinstance(value, list):
        value = value[-1]
    return str(value).upper() in ("ON", "1", "TRUE", "YES", "Y")


def _machine_has_nvcc() -> bool:
    """The places cmake/cuda.cmake looks in."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), *(f"{p}/nvidia/cu13" for p in sys.path if p)]
    found = [shutil.which("nvcc"), *(str(Path(root, "bin", "nvcc")) for root in roots if root)]
    return any(_is_new_enough(nvcc) for nvcc in found if nvcc)


def _is_new_enough(nvcc: str) -> bool:
    try:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    release = re.search(r"release (\d+)\.(\d+)", text)
    return release is not None and (int(release[1]), int(release[2])) >= _VERSION
