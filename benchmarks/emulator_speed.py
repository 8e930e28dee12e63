"""Warp instructions a second of the emulator on a tensor-core kernel, on one core, with checks and counters on and off.

python benchmarks/emulator_speed.py          (needs nvcc on PATH)
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vlmkernels import emulator

# C = A B^T in half precision: 64 x 64 tiles, four warps of 32 x 32, two stages of asynchronous copies, rows padded against bank conflicts.
SOURCE = r"""
#include <cstdint>
#include <cuda_fp16.h>
constexpr int kTile = 64, kDepth = 32, kPitch = kDepth + 8;

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
__device__ void load_matrices(uint32_t (&r)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from));
}
__device__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

extern "C" __global__ void __launch_bounds__(128) matmul(const half* a, const half* b, float* c, int n, int k) {
    __shared__ alignas(16) half tiles[2][2][kTile * kPitch];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row0 = blockIdx.y * kTile, column0 = blockIdx.x * kTile;
    auto fetch = [&](int stage, int at) {
        for (int i = threadIdx.x; i < kTile * kDepth / 8; i += 128) {
            const int row = i / (kDepth / 8), part = i % (kDepth / 8) * 8;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(&tiles[stage][0][row * kPitch + part])),
                         "l"(a + static_cast<int64_t>(row0 + row) * k + at + part));
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(&tiles[stage][1][row * kPitch + part])),
                         "l"(b + static_cast<int64_t>(column0 + row) * k + at + part));
        }
        asm volatile("cp.async.commit_group;");
    };
    float sum[2][4][4] = {};
    const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
    fetch(0, 0);
    for (int at = 0, stage = 0; at < k; at += kDepth, stage ^= 1) {
        asm volatile("cp.async.wait_group 0;");
        __syncthreads();
        if (at + kDepth < k) fetch(stage ^ 1, at + kDepth);
#pragma unroll
        for (int step = 0; step < kDepth; step += 16) {
            uint32_t x[2][4], y[2][4];
            for (int i = 0; i < 2; ++i) {
                load_matrices(x[i], shared_address(&tiles[stage][0][(warp_row + 16 * i + lane % 16) * kPitch + step + lane / 16 * 8]));
                load_matrices(y[i], shared_address(&tiles[stage][1][(warp_column + 16 * i + lane % 16) * kPitch + step + lane / 16 * 8]));
            }
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 4; ++j) multiply_add(sum[i][j], x[i], y[j / 2][j % 2], y[j / 2][j % 2 + 2]);
        }
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j)
            for (int h = 0; h < 2; ++h) {
                const int row = row0 + warp_row + 16 * i + 8 * h + lane / 4, column = column0 + warp_column + 8 * j + lane % 4 * 2;
                *reinterpret_cast<float2*>(c + static_cast<int64_t>(row) * n + column) = make_float2(sum[i][j][2 * h], sum[i][j][2 * h + 1]);
            }
}
"""


def main() -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit("nvcc is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        source, ptx = Path(folder, "matmul.cu"), Path(folder, "matmul.ptx")
        source.write_text(SOURCE)
        subprocess.run([nvcc, "-arch=sm_80", "-O3", "-lineinfo", "-ptx", "-o", ptx, source], check=True)
        module = emulator.load(ptx)
    n, k = 256, 512
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, k)).astype(np.float16) for _ in range(2))
    want = a.astype(np.float32) @ b.astype(np.float32).T
    for checks, counters in ((False, False), (False, True), (True, False), (True, True)):
        speeds = []
        for _ in range(7):
            c = np.zeros((n, n), np.float32)
            started = time.process_time()  # other processes of the machine do not count
            report = module.launch(
                "matmul", (n // 64, n // 64), 128, [a, b, c, n, k], checks=checks, counters=counters, threads=1
            )
            speeds.append(report.counters["warp_instructions"] / (time.process_time() - started) * 1e-6)
            report.raise_for_findings()
        if not np.allclose(c, want, atol=1e-2):
            sys.exit("the product is wrong")
        print(
            f"checks {checks!s:<5}  counters {counters!s:<5}  {statistics.median(speeds):6.2f} million warp instructions a second, best {max(speeds):.2f}"
        )
    print(report.summary())


if __name__ == "__main__":
    main()
