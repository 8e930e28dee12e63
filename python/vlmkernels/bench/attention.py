"""Attention workloads: self- and cross-attention, tile visibility, decoding. Packed sequences are in :mod:`packed`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmkernels.bench.shapes import Shape, load_shapes
from vlmkernels.bench.workload import PASSES, Call, Prepared, Unavailable, Workload, grad_pass, seeded_generator
from vlmkernels.ops.attention import attention, cross_attention
from vlmkernels.reference import attention as reference
from vlmkernels.reference.attention import Options

__all__ = ["attention_flops", "attention_workloads", "dense_workload", "visible_pairs"]

#: torch's function, without types: tensors are unpacked into it.
sdpa: Any = F.scaled_dot_product_attention

PEERS = ("sdpa", "sdpa-flash", "sdpa-math", "sdpa-efficient", "sdpa-cudnn", "flash-attn", "eager", "compile", "onednn")
GPU_PEERS = ("sdpa-flash", "sdpa-cudnn", "sdpa-efficient", "flash-attn")
FORMULA = {
    "forward": "FLOP = 4 B Hq D pairs (Q K^T and P V; pairs: query-key pairs the mask leaves)",
    "backward": "FLOP = 10 B Hq D pairs (S again, dP, dV, dQ, dK)",
    "forward+backward": "FLOP = 14 B Hq D pairs",
}
PRODUCTS = {"forward": 4.0, "backward": 10.0, "forward+backward": 14.0}
_TOUCHED = {
    "forward": (2, 2),
    "backward": (4, 4),
    "forward+backward": (6, 6),
}  # query-like and key-like tensors, once each


def visible_pairs(shape: Shape) -> int:
    """Query-key pairs of one head of one batch item that are not masked."""
    sq, sk = shape["Sq"], shape["Sk"]
    if shape.get("causal"):
        return sum(min(i + 1, sk) for i in range(sq))
    if "visible_tiles" in shape:
        parts = _row_parts(shape)
        return sum(rows * min(tiles * shape["tokens_per_tile"], sk) for rows, tiles in parts)
    if "padding" in shape:
        last, of = shape["padding"]["last"], shape["padding"]["of"]
        return sq * sk - (sq // of * last) * (sk // of * last)
    return int(sq * sk)


def _row_parts(shape: Shape) -> list[tuple[int, int]]:
    """(rows, visible tiles) of the equal parts of the rows."""
    tiles = shape["visible_tiles"]
    edges = [shape["Sq"] * i // len(tiles) for i in range(len(tiles) + 1)]
    return [(edges[i + 1] - edges[i], visible) for i, visible in enumerate(tiles)]


def attention_flops(shape: Shape, run_pass: str) -> float:
    return float(PRODUCTS[run_pass]) * shape["B"] * shape["Hq"] * shape["D"] * visible_pairs(shape)


def _everything_visible(shape: Shape) -> bool:
    return bool(shape.get("visible_tiles", [0]) == [shape.get("tiles")])


def _bytes(shape: Shape, dtype: torch.dtype, run_pass: str) -> float:
    queries, keys = (shape["B"] * shape[h] * shape[s] * shape["D"] for h, s in (("Hq", "Sq"), ("Hk", "Sk")))
    like_query, like_key = _TOUCHED[run_pass]
    return float(dtype.itemsize * (like_query * queries + like_key * keys))


def _tensors(shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and the gradient of the output, stored (B, S, H, D) as the projections of models leave them."""
    g = seeded_generator()

    def one(heads: int, tokens: int) -> Tensor:
        return torch.randn(shape["B"], tokens, heads, shape["D"], generator=g).to(dtype).transpose(1, 2)

    q, k, v = one(shape["Hq"], shape["Sq"]), one(shape["Hk"], shape["Sk"]), one(shape["Hk"], shape["Sk"])
    return q, k, v, one(shape["Hq"], shape["Sq"])


def _visible(shape: Shape) -> Tensor:
    rows = [torch.arange(shape["tiles"]) < tiles for count, tiles in _row_parts(shape) for _ in range(count)]
    return torch.stack(rows).expand(shape["B"], -1, -1).contiguous()


def _padding(shape: Shape, tokens: int) -> Tensor:
    last, of = shape["padding"]["last"], shape["padding"]["of"]
    return (torch.arange(tokens) % of >= of - last).expand(shape["B"], -1).contiguous()


def _prepare(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
    q, k, v, grad = _tensors(shape, dtype)
    backward = run_pass != "forward"
    leaves = [t.requires_grad_(backward) for t in (q, k, v)]
    causal = "top_left" if shape.get("causal") else None
    visible = _visible(shape) if "tiles" in shape and not _everything_visible(shape) else None
    paddings = (_padding(shape, shape["Sq"]), _padding(shape, shape["Sk"])) if "padding" in shape else (None, None)
    masked = visible is not None or paddings[0] is not None

    def call(shown: Tensor | None) -> Tensor:
        if not masked:
            return attention(q, k, v, causal=causal)  # type: ignore[no-any-return, arg-type]
        tokens = None if shown is None else shape["tokens_per_tile"]
        return cross_attention(  # type: ignore[no-any-return]
            q, k, v, visible=shown, tokens_per_tile=tokens, query_padding=paddings[0], key_padding=paddings[1]
        )

    def measured(compute: Callable[[], Tensor]) -> Call:
        return grad_pass(lambda: (compute(),), leaves, [grad], run_pass)

    def seen() -> Tensor | None:
        if not masked and causal is None:
            return None
        options = Options(
            reference.TOP_LEFT if causal else reference.NOT_CAUSAL, tokens_per_tile=shape.get("tokens_per_tile", 0)
        )
        one = [None if t is None else t[:1] for t in (visible, *paddings)]
        return reference.allowed_pairs(shape["Sq"], shape["Sk"], options, *one)[0, 0]

    peers = _Peers(q, k, v, causal is not None, seen() if masked else None)
    group = shape["Hq"] // shape["Hk"]
    heads = (group, group, 1, 1) if run_pass == "forward+backward" else (group, 1, 1)
    counts = (group,) if run_pass == "forward" else heads
    parts: dict[str, Callable[[], Call]] = {}
    if visible is not None and run_pass == "forward":
        parts = {
            "ours, all visible": lambda: measured(lambda: call(torch.ones_like(visible))),
            "ours, none visible": lambda: measured(lambda: call(torch.zeros_like(visible))),
        }
    decoding = shape["Sq"] <= 8 < shape["Sk"]
    return Prepared(
        ours=lambda: measured(lambda: call(visible)),
        peers={name: functools.partial(lambda make: measured(make()), make) for name, make in peers.all().items()},
        exact=lambda: _exact(q, k, v, grad, group, seen(), run_pass),
        outputs=_output_names(run_pass),
        yardstick="sdpa",
        flops=attention_flops(shape, run_pass),
        bytes=2.0 * k.numel() * dtype.itemsize if decoding else _bytes(shape, dtype, run_pass),
        formula=FORMULA[run_pass] + ("; bytes = K and V, read once" if decoding else "; bytes = every input and output once"),
        sample=lambda outputs: tuple(t[:1, :h] for t, h in zip(outputs, counts, strict=True)),
        parts=parts,
    )  # fmt: skip


def _output_names(run_pass: str) -> tuple[str, ...]:
    gradients = () if run_pass == "forward" else ("grad query", "grad key", "grad value")
    return gradients if run_pass == "backward" else ("out", *gradients)


def _exact(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor, group: int, seen: Tensor | None, run_pass: str
) -> tuple[Tensor, ...]:
    """The reference in float64 for the first group of heads of the first batch item, in blocks of rows."""
    with torch.no_grad():
        q, do = (t[:1, :group].double() for t in (query, grad))
        k, v = (t[:1, :1].double() for t in (key, value))
        options = Options(scale=q.shape[-1] ** -0.5)
        rows = max(1, 2**24 // (group * k.shape[2]))
        outs, dqs = [], []
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, q.shape[2], rows):
            block = slice(start, start + rows)
            mask = None if seen is None else seen[None, None, block]
            out, lse = reference.attention(q[:, :, block], k, v, mask, options=options)
            outs.append(out)
            if run_pass != "forward":
                parts = reference.attention_backward(do[:, :, block], None, q[:, :, block], k, v, out, lse, mask, options=options)  # fmt: skip
                dqs.append(parts[0])
                dk += parts[1]
                dv += parts[2]
        gradients = (torch.cat(dqs, 2), dk, dv) if dqs else ()
        return gradients if run_pass == "backward" else (torch.cat(outs, 2), *gradients)


class _Peers:
    """PyTorch's ways, as functions that make the call. `mask` is bool (Sq, Sk); building it costs a peer nothing here."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, causal: bool, mask: Tensor | None) -> None:
        self.qkv, self.causal = (query, key, value), causal
        self.grouped = query.shape[1] != key.shape[1]
        self.mask, self.sighted = mask, None
        if mask is not None and not bool((some := mask.any(-1)).all()):
            # As models do it: a row that sees nothing attends to everything, and its result is multiplied by zero.
            self.mask = mask | ~some[:, None]
            self.sighted = some[:, None].to(query.dtype)

    def all(self) -> dict[str, Callable[[], Callable[[], Tensor]]]:
        return {
            "sdpa": lambda: self._sdpa(None),
            "sdpa-flash": lambda: self._sdpa(SDPBackend.FLASH_ATTENTION),
            "sdpa-math": lambda: self._sdpa(SDPBackend.MATH),
            "sdpa-efficient": lambda: self._sdpa(SDPBackend.EFFICIENT_ATTENTION),
            "sdpa-cudnn": lambda: self._sdpa(SDPBackend.CUDNN_ATTENTION),
            "flash-attn": self._flash_attn,
            "eager": lambda: self._eager,
            "compile": self._compiled,
            "onednn": self._onednn,
        }

    def _finish(self, out: Tensor) -> Tensor:
        return out if self.sighted is None else out * self.sighted

    def _sdpa(self, backend: SDPBackend | None) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with contextlib.nullcontext() if backend is None else sdpa_kernel(backend):
                out = sdpa(*self.qkv, attn_mask=self.mask, is_causal=self.causal, enable_gqa=self.grouped)
            return self._finish(out)

        if backend is not None:
            with torch.no_grad():
                try:
                    call()
                except RuntimeError as error:
                    name = backend.name.removesuffix("_ATTENTION").lower()
                    raise Unavailable(
                        f"torch has no {name} attention for these tensors: {str(error).splitlines()[0]}"
                    ) from error
        return call

    def _flash_attn(self) -> Callable[[], Tensor]:
        package = flash_attn(self.qkv[0])
        if self.mask is not None:
            raise Unavailable("flash-attn has no such mask")
        q, k, v = (t.transpose(1, 2) for t in self.qkv)
        causal = self.causal
        return lambda: package.flash_attn_func(q, k, v, causal=causal).transpose(1, 2)  # type: ignore[no-any-return]

    def _eager(self) -> Tensor:
        q, k, v = self.qkv
        if self.grouped:
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        if self.causal:
            scores = scores.masked_fill(scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask, float("-inf"))
        return self._finish(scores.softmax(-1) @ v)

    def _compiled(self) -> Callable[[], Tensor]:
        return compiled(self._eager)

    def _onednn(self) -> Callable[[], Tensor]:
        """The eager form where torch hands its batched products to oneDNN."""
        check_onednn(self.qkv[0].dtype)
        return self._eager


def flash_attn(query: Tensor) -> Any:
    """The package, where it is installed and takes such tensors."""
    if importlib.util.find_spec("flash_attn") is None:
        raise Unavailable("flash-attn is not installed")
    if not query.is_cuda or query.dtype == torch.float32:
        raise Unavailable("flash-attn takes fp16 and bf16 tensors on a GPU")
    return importlib.import_module("flash_attn")


def compiled(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """torch.compile of a function, run once to see that it works here."""
    try:
        made = torch.compile(function, dynamic=False)
        with torch.no_grad():
            made()
    except Exception as error:  # whatever the compiler and its toolchain raise
        raise Unavailable(f"torch.compile fails: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return made


def check_onednn(dtype: torch.dtype) -> None:
    if dtype == torch.float32:
        raise Unavailable("torch hands float32 batched products to MKL or OpenBLAS, not to oneDNN")
    if not torch.backends.mkldnn.is_available():
        raise Unavailable("this torch is built without oneDNN")
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported")  # fmt: skip
    if not supported():
        raise Unavailable(f"oneDNN has no {str(dtype).removeprefix('torch.')} products on this processor")


def dense_workload(shape: Shape) -> Workload:
    decoding = shape["Sq"] <= 8 < shape["Sk"]
    return Workload(
        name=shape["name"],
        operation="attention",
        shape=shape,
        prepare=_prepare,
        passes=PASSES,
        flops=attention_flops,
        bound="read" if decoding else "compute",
        peers=PEERS,
        default_peers=("sdpa",),
        gpu_peers=GPU_PEERS,
    )


def attention_workloads() -> list[Workload]:
    """The dense shapes; decoding with 1, 2, 4 and 8 query rows."""
    found = []
    for shape in load_shapes()["attention"]:
        if "sequences" in shape:
            continue
        found.append(dense_workload(shape))
        if shape["name"] == "llama32v-cross-decode":
            found += [dense_workload({**shape, "name": f"{shape['name']}-{sq}", "Sq": sq}) for sq in (2, 4, 8)]
    return found
