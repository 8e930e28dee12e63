"""The portable kernels compiled for aarch64 and run under an emulator, where both are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")


@pytest.mark.skipif(not (COMPILER and EMULATOR), reason="needs aarch64-linux-gnu-g++ and qemu-aarch64")
def test_portable_kernels_on_aarch64(tmp_path: Path) -> None:
    assert COMPILER is not None
    assert EMULATOR is not None
    # What a sanitizer run preloads is for this machine and this process alone.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    kernels = [str(path) for path in ROOT.glob("csrc/*/cpu_*.cpp")]
    core = [str(path) for path in ROOT.glob("csrc/core/*.cpp")]
    defines = ["-DVLMK_ISA=baseline", "-DVLMK_LANES=4", "-DVLMK_BF16_DOT=0"]
    program = tmp_path / "smoke"
    subprocess.run(
        [COMPILER, "-std=gnu++17", "-O1", "-static", "-Wno-psabi", "-ffp-contract=fast", f"-I{ROOT / 'csrc'}", *defines,
         str(ROOT / "tests/native/smoke.cpp"), *kernels, *core, "-lgomp", "-lpthread", "-ldl", "-o", str(program)],
        check=True,
        env=environment,
    )  # fmt: skip
    run = subprocess.run([EMULATOR, str(program)], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("error") == 8
