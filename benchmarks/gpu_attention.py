"""Times vlmkernels' CUDA attention against torch's kernels on this GPU: CUDA graphs replayed over inputs larger than the L2 cache, in turns.

python benchmarks/gpu_attention.py [--dtype bfloat16] [--json F]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import vlmkernels as vk

#: name, batch, query heads, key heads, query length, key length, head_dim.
SHAPES = [
    ("clip-b16", 64, 12, 12, 197, 197, 64),
    ("clip-l14", 64, 16, 16, 257, 257, 64),
    ("clip-l14-336", 32, 16, 16, 577, 577, 64),
    ("siglip-so400m", 32, 16, 16, 729, 729, 72),
    ("mllama-vision", 16, 16, 16, 1601, 1601, 80),
    ("video-8k", 2, 16, 16, 8192, 8192, 64),
    ("d128", 4, 32, 32, 2048, 2048, 128),
    ("llama32v-cross", 8, 32, 8, 128, 6404, 128),
    ("decode", 8, 32, 8, 1, 6404, 128),
]
PEERS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def graph_of(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def milliseconds(graph: torch.cuda.CUDAGraph, flush: torch.Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.zero_()
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def contenders(shape: tuple[int, ...], dtype: torch.dtype, backward: bool) -> dict[str, Callable[[], object]]:
    b, hq, hk, sq, sk, d = shape
    q = torch.randn(b, sq, hq, d, device="cuda", dtype=dtype).transpose(1, 2)
    k, v = (torch.randn(b, sk, hk, d, device="cuda", dtype=dtype).transpose(1, 2) for _ in range(2))
    grad = torch.randn_like(q)
    if backward:
        for t in (q, k, v):
            t.requires_grad_()

    def with_gradients(forward: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return (lambda: torch.autograd.grad(forward(), (q, k, v), grad)) if backward else forward

    found = {"ours": with_gradients(lambda: vk.attention(q, k, v))}
    for name, backend in PEERS.items():

        def peer(backend: SDPBackend = backend) -> torch.Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, enable_gqa=hq != hk)

        found[name] = with_gradients(peer)
    return found


def measure(shape: tuple[int, ...], dtype: torch.dtype, backward: bool, samples: int) -> dict[str, float | str]:
    graphs, found = {}, dict[str, float | str]()
    for name, call in contenders(shape, dtype, backward).items():
        try:
            graphs[name] = graph_of(call)
        except Exception as error:
            if name == "ours":
                raise
            found[name] = str(error).splitlines()[0][:80]
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(samples):
        for name, graph in graphs.items():
            times[name].append(milliseconds(graph, flush))
    return found | {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.dtype}; medians of {arguments.samples}, milliseconds (TFLOP/s)"
    )
    results = []
    for backward in (False, True):
        for name, *shape in SHAPES:
            b, hq, _, sq, sk, d = shape
            operations = 4 * b * hq * sq * sk * d * (3.5 if backward else 1)
            times = measure(tuple(shape), dtype, backward, arguments.samples)
            results.append({"name": name, "shape": shape, "backward": backward, "milliseconds": times})
            cells = [
                f"{peer} {t:.3f} ({operations / t / 1e9:.0f})" if isinstance(t, float) else f"{peer}: {t}"
                for peer, t in times.items()
            ]
            print(f"{name:16}{'forward+backward' if backward else 'forward':17}", "  ".join(cells), flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"gpu": torch.cuda.get_device_name(), "dtype": arguments.dtype, "results": results}, indent=1)
        )


if __name__ == "__main__":
    main()
