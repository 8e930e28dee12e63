"""What a call costs before any arithmetic: operators on tiny inputs, on one thread, without gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.bench.shapes import Shape
from vlmkernels.bench.workload import Call, Prepared, Workload
from vlmkernels.ops.attention import attention, scaled_dot_product_attention
from vlmkernels.ops.patch_embed import patch_embed
from vlmkernels.reference import attention as reference_attention
from vlmkernels.reference import patch_embed as reference_patch_embed
from vlmkernels.reference.attention import Options

__all__ = ["host_workloads"]

_ATTENTION: Shape = {"B": 1, "Hq": 1, "Hk": 1, "Sq": 4, "Sk": 4, "D": 8}
_PATCHES: Shape = {"B": 1, "C": 1, "H": 4, "W": 4, "P": [2, 2], "E": 8}


def _call(compute: Callable[[], Tensor]) -> Callable[[], Call]:
    return lambda: torch.no_grad()(lambda: (compute(),))


def _prepare_attention(ours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Shape, torch.dtype, str], Prepared]:  # fmt: skip
    def prepare(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
        g = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, 1, shape["Sq"], shape["D"], generator=g).to(dtype) for _ in range(3))
        options = Options(scale=shape["D"] ** -0.5)
        return Prepared(
            ours=_call(lambda: ours(q, k, v)),
            peers={"sdpa": _call(lambda: F.scaled_dot_product_attention(q, k, v))},
            exact=lambda: (reference_attention.attention(q.double(), k.double(), v.double(), options=options)[0],),
            outputs=("out",),
            yardstick="sdpa",
            flops=0.0,
            bytes=0.0,
            formula="time of a call",
        )

    return prepare


def _prepare_patches(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 1, 4, 4, generator=g).to(dtype)
    weight = torch.randn(8, 1, 2, 2, generator=g).to(dtype)
    return Prepared(
        ours=_call(lambda: patch_embed(pixels, weight)),
        peers={"conv2d": _call(lambda: F.conv2d(pixels, weight, stride=2).flatten(2).mT)},
        exact=lambda: (reference_patch_embed.patch_embed(pixels.double(), weight.double()),),
        outputs=("tokens",),
        yardstick="conv2d",
        flops=0.0,
        bytes=0.0,
        formula="time of a call",
    )


def host_workloads() -> list[Workload]:
    rows = [
        ("tiny-attention", _ATTENTION, _prepare_attention(attention), "sdpa"),
        ("tiny-sdpa", _ATTENTION, _prepare_attention(scaled_dot_product_attention), "sdpa"),
        ("tiny-patch-embed", _PATCHES, _prepare_patches, "conv2d"),
    ]
    return [
        Workload(
            name=name,
            operation="host",
            shape={"name": name, **shape},
            prepare=prepare,
            passes=("forward",),
            flops=lambda shape, run_pass: 0.0,
            bound="host",
            peers=(peer,),
            default_peers=(peer,),
            dtypes=(torch.float32,),
        )
        for name, shape, prepare, peer in rows
    ]
