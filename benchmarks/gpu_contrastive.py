"""Times vlmkernels' CUDA losses, forward and backward, against the same losses with a matrix of logits, and against torch's products of the same size alone: CUDA
graphs replayed over inputs larger than the L2 cache, in turns.

python benchmarks/gpu_contrastive.py [--dtype bfloat16] [--json F]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import vlmkernels as vk
from gpu_attention import graph_of, milliseconds

SHAPES = [(1024, 512), (4096, 512), (8192, 768), (16_384, 768), (32_768, 512), (65_536, 768)]
#: Products of M x N x D that each loss needs.
PRODUCTS = {"info_nce": 4, "sigmoid": 3}


def features(rows: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return tuple(F.normalize(torch.randn(rows, width, device="cuda"), dim=1).to(dtype).requires_grad_() for _ in range(2))  # type: ignore[return-value]  # fmt: skip


def contenders(loss: str, rows: int, width: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    x, y = features(rows, width, dtype)
    scale, bias = (torch.full((), value, device="cuda", requires_grad=True) for value in (20.0, -10.0))
    targets = torch.arange(rows, device="cuda")

    def ours() -> Tensor:
        return vk.contrastive_loss(x, y, scale) if loss == "info_nce" else vk.sigmoid_loss(x, y, scale, bias)  # type: ignore[no-any-return]

    def matrix() -> Tensor:
        z = scale * (x @ y.mT).float()
        if loss == "info_nce":
            return (F.cross_entropy(z, targets) + F.cross_entropy(z.mT, targets)) / 2
        signs = 2 * torch.eye(rows, device="cuda") - 1
        return -F.logsigmoid(signs * (z + bias)).sum() / rows

    inputs = (x, y, scale) if loss == "info_nce" else (x, y, scale, bias)

    def products() -> None:
        """Blocks of 8192 rows and columns, one after the other."""
        with torch.no_grad():
            side = min(rows, 8192)
            block = x[:side] @ y[:side].mT
            for _ in range((rows // side) ** 2):
                for _ in range(PRODUCTS[loss] - 2):
                    torch.mm(x[:side], y[:side].mT, out=block)
                block @ y[:side]
                block.mT @ x[:side]

    return {
        "ours": lambda: torch.autograd.grad(ours(), inputs),
        "matrix of logits": lambda: torch.autograd.grad(matrix(), inputs),
        "products alone": products,
    }


def measure(loss: str, rows: int, width: int, dtype: torch.dtype, samples: int) -> dict[str, float | str]:
    graphs, found = {}, dict[str, float | str]()
    for name, call in contenders(loss, rows, width, dtype).items():
        if name == "matrix of logits" and rows > 32_768:
            continue
        try:
            graphs[name] = graph_of(call)
        except torch.OutOfMemoryError:
            found[name] = "out of memory"
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
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.dtype}, forward and backward; medians of {arguments.samples}, milliseconds (TFLOP/s)")  # fmt: skip
    results = []
    for loss, products in PRODUCTS.items():
        for rows, width in SHAPES:
            times = measure(loss, rows, width, dtype, arguments.samples)
            torch.cuda.empty_cache()
            results.append({"loss": loss, "rows": rows, "width": width, "milliseconds": times})
            operations = products * 2 * rows * rows * width
            cells = [
                f"{name} {t:.3f} ({operations / t / 1e9:.0f})" if isinstance(t, float) else f"{name}: {t}"
                for name, t in times.items()
            ]
            print(f"{loss:9}{rows:7} x {width:<5}", "  ".join(cells), flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"gpu": torch.cuda.get_device_name(), "dtype": arguments.dtype, "results": results}, indent=1)
        )


if __name__ == "__main__":
    main()
