"""Small PTX kernels written out in tests, and the means to run them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

emulator = pytest.importorskip("vlmkernels.emulator", reason="the compiled module is missing")

HEADER = ".version 8.4\n.target sm_90\n.address_size 64\n"

# Register types of the operands of one instruction, and their numpy types.
REGISTERS = {
    "u16": ("b16", np.uint16),
    "s16": ("b16", np.int16),
    "b16": ("b16", np.uint16),
    "f16": ("b16", np.float16),
    "bf16": ("b16", np.uint16),
    "u32": ("b32", np.uint32),
    "s32": ("b32", np.int32),
    "b32": ("b32", np.uint32),
    "f32": ("f32", np.float32),
    "u64": ("b64", np.uint64),
    "s64": ("b64", np.int64),
    "b64": ("b64", np.uint64),
    "f64": ("f64", np.float64),
}


def kernel(body: str, parameters: int = 2, name: str = "k", declarations: str = "", directives: str = "") -> str:
    """A kernel with pointer parameters %p0, %p1, ... in registers and the thread index in %tid."""
    params = ",\n".join(f".param .u64 {name}_{i}" for i in range(parameters))
    loads = "\n".join(f"ld.param.u64 %p{i}, [{name}_{i}];" for i in range(parameters))
    return f"""{HEADER}
{declarations}
.visible .entry {name}({params})
{directives}
{{
.reg .pred %q<16>;
.reg .b16 %h<32>;
.reg .b32 %r<64>;
.reg .f32 %f<64>;
.reg .b64 %d<32>;
.reg .f64 %g<16>;
.reg .b64 %p<8>;
.reg .b32 %tid, %cta;
.reg .b64 %at;
{loads}
mov.u32 %tid, %tid.x;
mov.u32 %cta, %ctaid.x;
{body}
ret;
}}
"""


def elementwise(instruction: str, result: str, *operands: str) -> str:
    """A kernel that runs one instruction, ``d`` and ``a``, ``b``, ``c`` in its text, on arrays of its operands."""
    letters = "abcd"
    lines = [f".reg .{REGISTERS[result][0]} %res;"]
    for i, kind in enumerate(operands):
        register, dtype = REGISTERS[kind]
        size = np.dtype(dtype).itemsize
        lines += [
            f".reg .{register} %{letters[i]};",
            f"mad.wide.u32 %at, %tid, {size}, %p{i + 1};",
            f"ld.global.b{8 * size} %{letters[i]}, [%at];",
        ]
    size = np.dtype(REGISTERS[result][1]).itemsize
    lines += [instruction, f"mad.wide.u32 %at, %tid, {size}, %p0;", f"st.global.b{8 * size} [%at], %res;"]
    return kernel("\n".join(lines), len(operands) + 1)


def apply(instruction: str, result: str, *operands: tuple[str, np.ndarray]) -> np.ndarray:
    """The instruction on arrays: ``apply("add.s32 %res, %a, %b;", "s32", ("s32", x), ("s32", y))``."""
    module = emulator.load(elementwise(instruction, result, *(kind for kind, _ in operands)))
    arrays = [np.ascontiguousarray(values, dtype=REGISTERS[kind][1]) for kind, values in operands]
    out = np.zeros(len(arrays[0]), REGISTERS[result][1])
    report = module.launch("k", 1, len(out), [out, *arrays])
    report.raise_for_findings()
    return out


def line_of(text: str, mark: str) -> int:
    """The number of the line that holds a mark."""
    (line,) = [i for i, content in enumerate(text.splitlines(), 1) if mark in content]
    return line


NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not on PATH")


@functools.cache
def compile_cuda(source: str, arch: str = "sm_80") -> str:
    """PTX of CUDA C++ at full optimisation, with source lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cu")
        path.write_text(source)
        command = [str(NVCC), f"-arch={arch}", "-O3", "-lineinfo", "-ptx", "-o", f"{folder}/kernel.ptx", str(path)]
        # A sanitizer run preloads its library, which compilers do not survive.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return Path(folder, "kernel.ptx").read_text()
