"""Tiny workloads of every kind."""

from __future__ import annotations

from typing import Any

from vlmkernels.bench.attention import dense_workload
from vlmkernels.bench.ceilings import CeilingSettings
from vlmkernels.bench.contrastive import contrastive_workload
from vlmkernels.bench.packed import packed_workload
from vlmkernels.bench.patch_embed import patch_workload
from vlmkernels.bench.timing import Settings
from vlmkernels.bench.workload import Workload

QUICK_CEILINGS = CeilingSettings(readings=1, seconds=0.001, buffer_bytes=2**20, product=32)
QUICK = Settings(samples=2, seconds=0.0, shortest=0.0)

SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "self": (dense_workload, {"B": 2, "Hq": 4, "Hk": 2, "Sq": 19, "Sk": 19, "D": 16}),
    "causal": (dense_workload, {"B": 2, "Hq": 2, "Hk": 2, "Sq": 11, "Sk": 11, "D": 8, "causal": True}),
    "tiles": (dense_workload, {"B": 1, "Hq": 4, "Hk": 2, "Sq": 12, "Sk": 20, "D": 8, "tiles": 4, "tokens_per_tile": 5, "visible_tiles": [0, 2, 4]}),
    "padding": (dense_workload, {"B": 1, "Hq": 2, "Hk": 2, "Sq": 16, "Sk": 16, "D": 8, "padding": {"last": 2, "of": 8}}),
    "decode": (dense_workload, {"B": 1, "Hq": 4, "Hk": 2, "Sq": 2, "Sk": 40, "D": 16}),
    "windows": (packed_workload, {"sequences": 5, "tokens": {"from": 4, "to": 12, "step": 4}, "Hq": 2, "Hk": 2, "D": 8}),
    "image": (patch_workload, {"B": 2, "C": 3, "T": 1, "H": 16, "W": 24, "P": [1, 8, 8], "E": 16, "bias": True, "prefix": 1, "position": True}),
    "video": (patch_workload, {"B": 1, "C": 3, "T": 4, "H": 8, "W": 8, "P": [2, 4, 4], "E": 8, "bias": True, "prefix": 0, "position": True}),
    "patches": (patch_workload, {"packed": 9, "C": 3, "P": [2, 4, 4], "E": 8, "bias": False, "prefix": 0, "position": False}),
    "patches with position": (patch_workload, {"packed": 9, "C": 3, "P": [2, 4, 4], "E": 8, "bias": True, "prefix": 0, "position": True}),
    "info_nce": (contrastive_workload, {"loss": "info_nce", "B": 33, "D": 16}),
    "sigmoid": (contrastive_workload, {"loss": "sigmoid", "B": 33, "D": 16}),
}  # fmt: skip


def tiny(name: str) -> Workload:
    make, shape = SHAPES[name]
    workload: Workload = make({"name": name, **shape})
    return workload
