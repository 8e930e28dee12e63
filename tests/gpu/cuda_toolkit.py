"""Finding NVIDIA's compiler and using it at test time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """A compiler, without what a sanitizer run preloads into this process."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)


@cache
def nvcc() -> str | None:
    """nvcc of version 13 or newer on PATH, in CUDA_HOME or among the wheels of the package index; None if there is none."""
    homes = [os.environ.get("CUDA_HOME"), *(f"{p}/nvidia/cu13" for p in sys.path if p)]
    for found in (shutil.which("nvcc"), *(f"{home}/bin/nvcc" for home in homes if home)):
        if found and Path(found).exists():
            release = re.search(r"release (\d+)", run(found, "--version").stdout)
            if release and int(release[1]) >= 13:
                return found
    return None


def missing() -> str:
    """Why tests that compile device code cannot run; empty if they can."""
    return "" if nvcc() else "there is no nvcc 13 on PATH, in CUDA_HOME or among the wheels"


@cache
def include_folder() -> Path:
    """Where cuda.h is."""
    dryrun = run(nvcc(), "--dryrun", "-ptx", "-x", "cu", "/dev/null", "-o", "/dev/null").stderr
    root = re.search(r"#\$ TOP=(.+)", dryrun)
    assert root, dryrun
    return Path(root[1]).resolve() / "include"


def compile_ptx(source: Path, folder: Path, architecture: int = 80) -> str:
    """The PTX text of a .cu file, compiled as the build compiles kernels."""
    out = folder / f"{source.stem}.{architecture}.ptx"
    command = [nvcc(), "-ptx", "-O3", "-std=c++17", f"-arch=compute_{architecture}", "-lineinfo", "-allow-unsupported-compiler", f"-I{ROOT / 'csrc'}", source, "-o", out]  # fmt: skip
    done = run(*command)
    assert done.returncode == 0, done.stderr
    return out.read_text()
