"""What a call costs before any arithmetic: our operators on tiny inputs against torch's own, interleaved in one process.

python benchmarks/host_overhead.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import vlmkernels

ROUNDS, CALLS = 41, 400


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median microseconds a call, every round timing each of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(ROUNDS + 3):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            if round_ >= 3:
                times[name].append((time.perf_counter() - started) / CALLS * 1e6)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    torch.set_num_threads(1)
    q, k, v = (torch.randn(1, 1, 4, 8) for _ in range(3))
    pixels, weight = torch.randn(1, 1, 4, 4), torch.randn(8, 1, 2, 2)
    pairs = [
        (
            "attention",
            lambda: vlmkernels.attention(q, k, v),
            "F.scaled_dot_product_attention",
            lambda: F.scaled_dot_product_attention(q, k, v),
        ),
        (
            "scaled_dot_product_attention",
            lambda: vlmkernels.scaled_dot_product_attention(q, k, v),
            "F.scaled_dot_product_attention",
            lambda: F.scaled_dot_product_attention(q, k, v),
        ),
        (
            "patch_embed",
            lambda: vlmkernels.patch_embed(pixels, weight),
            "F.conv2d + flatten + transpose",
            lambda: F.conv2d(pixels, weight, stride=2).flatten(2).mT,
        ),
    ]
    print(f"torch {torch.__version__}, one thread, no gradient; median of {ROUNDS} rounds of {CALLS} calls")
    for name, ours, peer_name, peer in pairs:
        with torch.no_grad():
            found = interleaved({"ours": ours, "peer": peer})
        print(
            f"{name:<30}{found['ours']:6.2f} us    {peer_name:<34}{found['peer']:6.2f} us    ratio {found['ours'] / found['peer']:.2f}"
        )


if __name__ == "__main__":
    main()
