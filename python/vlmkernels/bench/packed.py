"""Packed sequences: windows, images of native resolution, frames."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from vlmkernels.bench.attention import FORMULA, PRODUCTS, flash_attn, sdpa
from vlmkernels.bench.shapes import Shape, load_shapes, sequence_lengths
from vlmkernels.bench.workload import PASSES, Call, Prepared, Unavailable, Workload, grad_pass, seeded_generator
from vlmkernels.ops.attention_varlen import attention_varlen
from vlmkernels.reference import attention as reference
from vlmkernels.reference.attention import Options

__all__ = ["packed_flops", "packed_workload", "packed_workloads"]

PEERS = ("split", "batched", "nested", "mask", "flash-attn")
GPU_PEERS = ("split", "batched", "nested", "flash-attn")
_TOUCHED = {"forward": 4, "backward": 8, "forward+backward": 12}


def packed_flops(shape: Shape, run_pass: str) -> float:
    pairs = sum(length * length for length in sequence_lengths(shape))
    return float(PRODUCTS[run_pass]) * shape["Hq"] * shape["D"] * pairs


def _prepare(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
    lengths = sequence_lengths(shape)
    g = seeded_generator()
    q, k, v, grad = (
        torch.randn(sum(lengths), shape[heads], shape["D"], generator=g).to(dtype) for heads in ("Hq", "Hk", "Hk", "Hq")
    )
    leaves = [t.requires_grad_(run_pass != "forward") for t in (q, k, v)]
    cu_seqlens = _offsets(lengths, q).int()
    group = shape["Hq"] // shape["Hk"]

    def measured(compute: Callable[[], Tensor]) -> Call:
        return grad_pass(lambda: (compute(),), leaves, [grad], run_pass)

    def exact() -> tuple[Tensor, ...]:
        with torch.no_grad():
            q1, k1, v1, grad1 = (
                t[:, :heads].double() for t, heads in zip((q, k, v, grad), (group, 1, 1, group), strict=True)
            )
            options = Options(scale=shape["D"] ** -0.5)
            out, lse = reference.attention_varlen(q1, k1, v1, cu_seqlens, cu_seqlens, options)
            if run_pass == "forward":
                return (out,)
            gradients = reference.attention_varlen_backward(
                grad1, None, q1, k1, v1, out, lse, cu_seqlens, cu_seqlens, options
            )
            return gradients if run_pass == "backward" else (out, *gradients)

    peers = _peers(q, k, v, lengths)
    gradients = () if run_pass == "forward" else ("grad query", "grad key", "grad value")
    outputs = gradients if run_pass == "backward" else ("out", *gradients)
    heads = {"out": group, "grad query": group, "grad key": 1, "grad value": 1}
    return Prepared(
        ours=lambda: measured(lambda: attention_varlen(q, k, v, cu_seqlens, cu_seqlens)),
        peers={name: functools.partial(lambda make: measured(make()), make) for name, make in peers.items()},
        exact=exact,
        outputs=outputs,
        yardstick="split",
        flops=packed_flops(shape, run_pass),
        bytes=float(_TOUCHED[run_pass] * q.numel() * dtype.itemsize),
        formula=FORMULA[run_pass].replace(" B ", " ") + "; pairs = sum of length^2; bytes = every input and output once",
        sample=lambda found: tuple(t[:, : heads[name]] for name, t in zip(outputs, found, strict=True)),
    )  # fmt: skip


def _offsets(lengths: list[int], like: Tensor) -> Tensor:
    """Where sequences begin and the last one ends."""
    return torch.tensor(list(itertools.accumulate(lengths, initial=0)), device=like.device)


def _peers(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> dict[str, Callable[[], Callable[[], Tensor]]]:  # fmt: skip
    grouped = query.shape[1] != key.shape[1]
    equal = len(set(lengths)) == 1

    def split() -> Callable[[], Tensor]:
        """A loop over the sequences, as models without packed attention write it."""

        def call() -> Tensor:
            pieces = zip(*(t.transpose(0, 1)[None].split(lengths, 2) for t in (query, key, value)), strict=True)
            outs = [sdpa(*piece, enable_gqa=grouped) for piece in pieces]
            return torch.cat(outs, 2)[0].transpose(0, 1)

        return call

    def batched() -> Callable[[], Tensor]:
        if not equal:
            raise Unavailable("the sequences have different lengths and do not make a batch")

        def call() -> Tensor:
            batch = (t.unflatten(0, (len(lengths), lengths[0])).transpose(1, 2) for t in (query, key, value))
            return sdpa(*batch, enable_gqa=grouped).transpose(1, 2).flatten(0, 1)

        return call

    def nested() -> Callable[[], Tensor]:
        if grouped:
            raise Unavailable("jagged tensors have no grouped heads")
        offsets = _offsets(lengths, query)

        def call() -> Tensor:
            jagged = (
                torch.nested.nested_tensor_from_jagged(t, offsets, min_seqlen=min(lengths), max_seqlen=max(lengths))
                for t in (query, key, value)
            )
            out = sdpa(*(t.transpose(1, 2) for t in jagged))
            return out.transpose(1, 2).values()

        return call

    def mask() -> Callable[[], Tensor]:
        if sum(lengths) > 5000:
            raise Unavailable(f"the dense mask of {sum(lengths)} tokens takes minutes a call")
        owner = torch.arange(len(lengths), device=query.device).repeat_interleave(
            torch.tensor(lengths, device=query.device)
        )
        same = owner[:, None] == owner[None]

        def call() -> Tensor:
            whole = (t.transpose(0, 1)[None] for t in (query, key, value))
            out = sdpa(*whole, attn_mask=same, enable_gqa=grouped)
            return out[0].transpose(0, 1)

        return call

    def flash() -> Callable[[], Tensor]:
        package, offsets, longest = flash_attn(query), _offsets(lengths, query).int(), max(lengths)
        return lambda: package.flash_attn_varlen_func(query, key, value, offsets, offsets, longest, longest)  # type: ignore[no-any-return]

    return {"split": split, "batched": batched, "nested": nested, "mask": mask, "flash-attn": flash}


def packed_workload(shape: Shape) -> Workload:
    return Workload(
        name=shape["name"],
        operation="attention",
        shape=shape,
        prepare=_prepare,
        passes=PASSES,
        flops=packed_flops,
        peers=PEERS,
        default_peers=("split",),
        gpu_peers=GPU_PEERS,
    )


def packed_workloads() -> list[Workload]:
    return [packed_workload(shape) for shape in load_shapes()["attention"] if "sequences" in shape]
