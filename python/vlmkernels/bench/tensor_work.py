"""How many tensor-core operations a problem needs at least, and what the tile rule of FlashAttention-2 issues for it.

Operations are FLOP, 2 m n k of every instruction; an m16n8k16 of 16-bit elements is 4,096. Tensor cores work on 16 rows and 8 columns of a product, which is the
padding that no kernel avoids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from vlmkernels.bench.gpus import Gpu
from vlmkernels.bench.shapes import Shape, sequence_lengths

__all__ = ["MMA_FLOP", "Flash2", "attention_minimum", "flash2", "loss_minimum", "patch_minimum", "product_minimum"]

MMA_FLOP = 2 * 16 * 8 * 16
_ROWS, _COLUMNS = 16, 8  # of the result of one instruction
_PRODUCTS = {"forward": 2, "backward": 5}  # of queries, keys and head_dim: Q K^T and P V; again, dP, dV, dQ and dK


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _split_products(dtype: torch.dtype) -> int:
    """fp32 is three products of tf32."""
    return 3 if dtype == torch.float32 else 1


def product_minimum(rows: int, columns: int, inner: int, dtype: torch.dtype) -> float:
    """Of a (rows x inner) by (inner x columns) product."""
    return 2.0 * _up(rows, _ROWS) * _up(columns, _COLUMNS) * inner * _split_products(dtype)


# --- attention ---


def _heads(shape: Shape, masks: bool = True, together: int = _ROWS - 1) -> Iterator[tuple[int, list[int]]]:
    """(how many heads, keys that each of their rows may see): the first so many keys. Without `masks` tile visibility is unknown, and only causality is left. Heads that
    share their keys also share rows of the product where they have at most `together` queries each."""
    if "sequences" in shape:
        for length in sequence_lengths(shape):
            yield shape["Hq"], [length] * length
        return
    queries, keys = shape["Sq"], shape["Sk"]
    if shape.get("causal"):
        seen = [min(i + 1, keys) for i in range(queries)]
    elif "visible_tiles" in shape and masks:
        tiles, part = shape["visible_tiles"], shape["tokens_per_tile"]
        edges = [queries * i // len(tiles) for i in range(len(tiles) + 1)]
        seen = [min(n * part, keys) for i, n in enumerate(tiles) for _ in range(edges[i], edges[i + 1])]
    else:
        seen = [keys] * queries
    group = shape["Hq"] // shape["Hk"]
    if queries <= together and len(set(seen)) == 1:
        yield shape["B"] * shape["Hk"], seen * group
    else:
        yield shape["B"] * shape["Hq"], seen


def _area(seen: list[int], rows: int, keys: int) -> int:
    """Query-key pairs of all tiles of rows x keys that hold a visible one."""
    return sum(rows * _up(max(seen[i : i + rows]), keys) for i in range(0, len(seen), rows))


def attention_minimum(shape: Shape, run_pass: str, dtype: torch.dtype) -> float:
    area = sum(count * _area(seen, _ROWS, _COLUMNS) for count, seen in _heads(shape))
    return 2.0 * _PRODUCTS[run_pass] * area * shape["D"] * _split_products(dtype)


# --- FlashAttention-2, as its launch templates choose tiles ---


@dataclass(frozen=True)
class Flash2:
    """Tile of queries x keys, the head_dim of the template that serves the problem, operations issued, blocks of the main kernel."""

    queries: int
    keys: int
    head_dim: int
    flop: float
    blocks: int


_TEMPLATES = (32, 64, 96, 128, 192, 256)
_FORWARD = {32: (128, 128), 64: (128, 128), 96: (128, 64), 128: (128, 64), 192: (128, 64), 256: (128, 64)}
_BACKWARD = {32: (128, 128), 64: (128, 128), 96: (64, 128), 128: (64, 128), 192: (64, 64), 256: (64, 64)}
_SMALL_BACKWARD = {**_BACKWARD, 64: (64, 128), 128: (64, 64), 256: (64, 32)}  # where a block has 99 KB
_SPLIT_QUERIES, _ENOUGH_SHARED = 64, 144 * 1024


def _forward_tile(head_dim: int, causal: bool, gpu: Gpu) -> tuple[int, int]:
    if gpu.architecture in (86, 89):
        if causal and head_dim in (96, 128):
            return 64, 64
        if head_dim == 128:
            return 128, 32
    if head_dim == 256 and gpu.architecture != 80:
        return 64, 64
    return _FORWARD[head_dim]


def _splits(blocks: int, slots: int, key_blocks: int) -> int:
    """The smallest number of parts that fills the last wave nearly as well as any; 1 where the blocks do already."""
    if blocks >= 0.8 * slots:
        return 1
    possible = [n for n in range(1, min(128, slots, key_blocks) + 1) if n == 1 or -(-key_blocks // n) != -(-key_blocks // (n - 1))]  # fmt: skip
    filled = {n: n * blocks / slots / -(-n * blocks // slots) for n in possible}
    return min(n for n in possible if filled[n] >= 0.85 * max(filled.values()))


def flash2(shape: Shape, run_pass: str, dtype: torch.dtype, gpu: Gpu) -> Flash2 | None:
    """None for fp32 and head dims it does not have. Tile visibility is a mask it does not know: it goes through all keys."""
    if dtype == torch.float32 or shape["D"] > _TEMPLATES[-1]:
        return None
    head_dim = next(d for d in _TEMPLATES if d >= shape["D"])
    heads = list(_heads(shape, masks=False, together=1 if run_pass == "forward" else 0))
    causal = bool(shape.get("causal"))
    parts = 1
    if run_pass == "backward":
        tiles = _BACKWARD if gpu.block_shared_bytes >= _ENOUGH_SHARED else _SMALL_BACKWARD
        queries, keys = tiles[head_dim]
        blocks = sum(count * -(-max(seen, default=0) // keys) for count, seen in heads)
    else:
        queries, keys = _forward_tile(head_dim, causal, gpu)
        if "sequences" not in shape:
            part_keys = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64
            ((count, seen),) = heads
            row_blocks = count * -(-len(seen) // _SPLIT_QUERIES)
            parts = _splits(row_blocks, 2 * gpu.multiprocessors, -(-max(seen) // part_keys))
            if parts > 1:
                queries, keys = _SPLIT_QUERIES, part_keys
        blocks = parts * sum(count * -(-len(seen) // queries) for count, seen in heads)
    area = sum(count * _area(seen, queries, keys) for count, seen in heads)
    return Flash2(queries, keys, head_dim, 2.0 * _PRODUCTS[run_pass] * area * head_dim, blocks)


# --- the other operations ---


def patch_minimum(patches: int, elements: int, width: int, run_pass: str, dtype: torch.dtype) -> float:
    """Tokens from patches; backward the weight's gradient."""
    sizes = (patches, width, elements) if run_pass == "forward" else (width, elements, patches)
    return product_minimum(*sizes, dtype)


def loss_minimum(rows: int, columns: int, width: int, run_pass: str, dtype: torch.dtype) -> float:
    """The logits; with gradients also those of both features."""
    logits = product_minimum(rows, columns, width, dtype)
    if run_pass == "forward":
        return logits
    return logits + product_minimum(rows, width, columns, dtype) + product_minimum(columns, width, rows, dtype)
