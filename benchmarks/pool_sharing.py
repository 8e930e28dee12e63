"""Do torch's operators and ours slow each other down when they alternate? Times each alone and alternating, interleaved in one process, and lists the OpenMP
libraries that the process has loaded.

    python benchmarks/pool_sharing.py
"""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import torch

import vlmkernels

ROUNDS, CALLS = 21, 20


def main() -> None:
    q, k, v = (torch.randn(1, 8, 256, 64) for _ in range(3))
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    times: dict[str, list[float]] = {"torch alone": [], "ours alone": [], "alternating": []}
    with torch.no_grad():
        for round_ in range(ROUNDS + 3):
            started = time.perf_counter()
            for _ in range(CALLS):
                a @ b
            middle = time.perf_counter()
            for _ in range(CALLS):
                vlmkernels.attention(q, k, v)
            end = time.perf_counter()
            for _ in range(CALLS):
                a @ b
                vlmkernels.attention(q, k, v)
            last = time.perf_counter()
            if round_ >= 3:
                times["torch alone"].append(middle - started)
                times["ours alone"].append(end - middle)
                times["alternating"].append(last - end)
    medians = {name: statistics.median(taken) / CALLS * 1e3 for name, taken in times.items()}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; median of {ROUNDS} rounds")
    for name, taken in medians.items():
        print(f"{name:<14}{taken:8.3f} ms")
    ratio = medians["alternating"] / (medians["torch alone"] + medians["ours alone"])
    print(f"alternating / (torch alone + ours alone) = {ratio:.2f}")
    maps = Path("/proc/self/maps")
    if maps.is_file():
        found = sorted(set(re.findall(r"\S*/(lib[gi]?omp[^/\s]*)", maps.read_text())))
        print("OpenMP libraries in the process:", ", ".join(found))


if __name__ == "__main__":
    main()
