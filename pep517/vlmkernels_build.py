"""The build backend: scikit-build-core's, with two additions.

It asks for NVIDIA's compiler where CUDA kernels are wanted and the machine has none, so that

    VLMKERNELS_CUDA=ON pip install .        (or -C cmake.define.VLMKERNELS_CUDA=ON)

needs no CUDA toolkit: pip puts the compiler's wheels into its temporary build environment, where cmake/cuda.cmake finds them.

And it keeps the objects of an earlier build, although pip builds in another environment each time: only what changed is compiled again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scikit_build_core import build as _scikit_build
from scikit_build_core.build import build_sdist, get_requires_for_build_sdist

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


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    _keep_objects()
    return _scikit_build.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    _keep_objects()
    return _scikit_build.build_editable(wheel_directory, config_settings, metadata_directory)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    _keep_objects()
    return _scikit_build.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    _keep_objects()
    return _scikit_build.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def _keep_objects() -> None:
    """scikit-build-core clears a build folder that another temporary environment left, objects and all. Of what is in it only CMake's cache names programs of that
    environment; the compile commands do not (cmake/pybind11.cmake and cmake/cuda.cmake see to that)."""
    here = str(Path(_scikit_build.__file__).resolve().parent.parent)
    for path in Path("build").glob("*/.skbuild-info.json"):
        try:
            info = json.loads(path.read_text())
        except ValueError:
            continue
        if isinstance(info, dict) and info.get("skbuild_path") != here:
            path.with_name("CMakeCache.txt").unlink(missing_ok=True)
            path.write_text(json.dumps({**info, "skbuild_path": here}))


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
