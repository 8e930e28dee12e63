"""The grid of cases: inputs, the operator's call, and PyTorch's own way to the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.ops.attention import attention, cross_attention
from vlmkernels.ops.attention_varlen import attention_varlen
from vlmkernels.ops.contrastive import contrastive_loss
from vlmkernels.ops.merge import merge_attention
from vlmkernels.ops.patch_embed import patch_embed, patch_embed_packed
from vlmkernels.ops.sigmoid import sigmoid_loss

__all__ = ["Case", "cases", "loss_cases"]

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`inputs(generator)` makes float64 tensors (and others as they are); the names in `cast` are converted to the dtype under test, those in `grads` get gradients.
    `call(**inputs)` and `peer(**inputs)` return the same tuple of tensors."""

    operation: str
    name: str
    inputs: Callable[[torch.Generator], Inputs]
    call: Callable[..., tuple[Tensor, ...]]
    peer: Callable[..., tuple[Tensor, ...]]
    cast: tuple[str, ...]
    grads: tuple[str, ...]
    outputs: tuple[str, ...] = ("out",)
    options: Inputs = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.operation}[{self.name}]"


def cases(quick: bool = False) -> Iterator[Case]:
    """All cases; with `quick` a handful an operator."""
    yield from _attention_cases(quick)
    yield from _varlen_cases(quick)
    yield from _cross_cases(quick)
    yield from _merge_cases(quick)
    yield from _patch_cases(quick)
    yield from _loss_cases(quick)


# --- attention ---


def allowed_pairs(
    sq: int, sk: int, causal: str | None = None, window: tuple[int | None, int | None] | None = None
) -> Tensor:
    """bool (Sq, Sk), from the definitions."""
    aligned = torch.arange(sq)[:, None] + (0 if causal == "top_left" else sk - sq)
    distance = torch.arange(sk)[None, :] - aligned
    seen = torch.ones(sq, sk, dtype=torch.bool)
    if causal is not None:
        seen &= distance <= 0
    if window is not None:
        left, right = window
        seen &= (distance >= -left) if left is not None else seen
        seen &= (distance <= right) if right is not None else seen
    return seen


def dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    bias: Tensor | None,
    scale: float | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """PyTorch's way: its fused kernel, or matrices in the inputs' dtype with an fp32 softmax where that kernel has no such option. Also the logsumexp."""
    groups = query.shape[1] // key.shape[1]
    k, v = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(wide) @ k.to(wide).mT) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.to(wide)
    scores = scores.masked_fill(~seen, float("-inf"))
    lse = torch.logsumexp(scores, -1) if scores.shape[-1] else scores.new_full(scores.shape[:-1], float("-inf"))
    if softcap is None and scores.shape[-1] and query.shape[0]:
        mask = (
            torch.zeros_like(scores).masked_fill(~seen, float("-inf"))
            if bias is None
            else bias.to(wide).expand_as(scores).masked_fill(~seen, float("-inf"))
        )
        out = F.scaled_dot_product_attention(query, k, v, attn_mask=mask.to(query.dtype), scale=scale)
        blind = ~seen.expand_as(scores).any(-1, keepdim=True)
        return torch.where(blind, torch.zeros_like(out), out), lse
    weights = torch.where(seen, torch.exp(scores - lse[..., None].nan_to_num(neginf=0.0)), 0.0)
    return (weights.to(query.dtype) @ v), lse


def _qkv(
    b: int, hq: int, hk: int, sq: int, sk: int, d: int, layout: str = "BHSD"
) -> Callable[[torch.Generator], Inputs]:
    def make(g: torch.Generator) -> Inputs:
        def one(h: int, s: int) -> Tensor:
            if layout == "BSHD":
                return torch.randn(b, s, h, d, generator=g, dtype=torch.float64).transpose(1, 2)
            if layout == "sliced":
                return torch.randn(b, h, 2 * s + 1, d + 8, generator=g, dtype=torch.float64)[:, :, 1::2, 8:]
            return torch.randn(b, h, s, d, generator=g, dtype=torch.float64)

        return {"query": one(hq, sq), "key": one(hk, sk), "value": one(hk, sk)}

    return make


_ATTENTION: list[tuple[str, tuple[int, int, int, int, int, int], str, Inputs]] = [  # name, (B, Hq, Hk, Sq, Sk, D), layout, options
    ("plain", (2, 3, 3, 67, 67, 64), "BHSD", {}),
    ("one query", (2, 4, 2, 1, 130, 40), "BSHD", {}),
    ("grouped causal", (1, 6, 2, 77, 77, 72), "BSHD", {"causal": "top_left"}),
    ("bottom right", (2, 2, 1, 33, 90, 32), "sliced", {"causal": "bottom_right"}),
    ("rows that see nothing", (1, 2, 2, 90, 33, 48), "BHSD", {"causal": "bottom_right"}),
    ("window", (1, 2, 2, 150, 150, 24), "BSHD", {"window": (20, 5)}),
    ("causal window", (1, 2, 1, 150, 200, 16), "BHSD", {"causal": "bottom_right", "window": (33, None)}),
    ("softcap and scale", (1, 2, 2, 65, 63, 56), "BHSD", {"softcap": 5.0, "scale": 0.3}),
    ("bool mask", (2, 2, 2, 40, 70, 32), "BHSD", {"mask": "bool"}),
    ("additive mask", (2, 2, 1, 40, 70, 88), "BSHD", {"mask": "additive"}),
    ("key validity", (3, 2, 2, 40, 70, 64), "BHSD", {"mask": "keys"}),
    ("long", (1, 1, 1, 300, 1100, 128), "BHSD", {}),
    ("few queries", (1, 2, 1, 3, 1100, 40), "BSHD", {"causal": "bottom_right"}),
    ("peaked", (1, 2, 2, 40, 400, 64), "BHSD", {"scale": 1.0}),
    ("decoding", (2, 8, 2, 1, 600, 128), "BSHD", {}),
    ("decoding of several", (1, 8, 1, 3, 270, 72), "BSHD", {}),
    ("decoding, masked", (2, 6, 2, 4, 140, 40), "BSHD", {"mask": "bool", "window": (70, None)}),
    ("no keys", (1, 2, 2, 5, 0, 8), "BHSD", {}),
    ("no batch", (0, 2, 2, 5, 4, 8), "BHSD", {}),
]  # fmt: skip


def _masked(inputs: Callable[[torch.Generator], Inputs], kind: str) -> Callable[[torch.Generator], Inputs]:
    def make(g: torch.Generator) -> Inputs:
        made = inputs(g)
        (b, _, sq, _), sk = made["query"].shape, made["key"].shape[2]
        if kind == "bool":
            made["mask"] = torch.rand(b, 1, sq, sk, generator=g) > 0.4
            made["mask"][:, :, 3] = False
        elif kind == "keys":
            made["mask"] = torch.arange(sk)[None] < torch.tensor([sk, 1, 37])[:b, None]
        else:  # strides that broadcast over heads and rows
            made["mask"] = torch.randn(b, 1, 1, sk, generator=g, dtype=torch.float64).expand(b, 2, sq, sk)
        return made

    return make


def _attention_peer(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **o: Any
) -> tuple[Tensor, Tensor]:
    seen, bias = allowed_pairs(query.shape[2], key.shape[2], o.get("causal"), o.get("window")), None
    if mask is not None and mask.dtype == torch.bool:
        seen = seen & (mask[:, None, None, :] if mask.dim() == 2 else mask)
    elif mask is not None:
        bias = mask
    return dense_attention(query, key, value, seen, bias, o.get("scale"), o.get("softcap"))


def _attention_case(name: str, sizes: tuple[int, int, int, int, int, int], layout: str, options: Inputs) -> Case:
    options = dict(options)
    kind = options.pop("mask", None)
    inputs = _qkv(*sizes, layout)
    return Case(
        "attention",
        name,
        inputs if kind is None else _masked(inputs, kind),
        lambda **kw: attention(**kw, return_lse=True),
        _attention_peer,
        ("query", "key", "value", "mask") if kind == "additive" else ("query", "key", "value"),
        ("query", "key", "value"),
        ("out", "lse"),
        options,
    )


def _attention_cases(quick: bool) -> Iterator[Case]:
    for row in _ATTENTION[:: 3 if quick else 1]:
        yield _attention_case(*row)
    for d in range(8, 257, 120 if quick else 8):
        yield _attention_case(f"head dim {d}", (1, 2, 1, 37, 45, d), "BSHD", {})


def _varlen_cases(quick: bool) -> Iterator[Case]:
    lengths = ([5, 0, 70, 1, 33], [9, 4, 66, 0, 33])

    def inputs(g: torch.Generator) -> Inputs:
        tq, tk = sum(lengths[0]) + 2, sum(lengths[1])
        made: Inputs = {
            "query": torch.randn(tq, 4, 40, generator=g, dtype=torch.float64),
            "key": torch.randn(tk, 2, 40, generator=g, dtype=torch.float64),
            "value": torch.randn(tk, 2, 40, generator=g, dtype=torch.float64),
        }
        for side, of in zip("qk", lengths, strict=True):
            made[f"cu_seqlens_{side}"] = torch.tensor([0, *torch.tensor(of).cumsum(0)], dtype=torch.int32)
        return made

    def peer(
        query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **o: Any
    ) -> tuple[Tensor, Tensor]:
        out, lse = [], []
        for n in range(len(cu_seqlens_q) - 1):
            q0, q1, k0, k1 = (int(c[n + i]) for c in (cu_seqlens_q, cu_seqlens_k) for i in (0, 1))
            one = _attention_peer(*(t.transpose(0, 1)[None] for t in (query[q0:q1], key[k0:k1], value[k0:k1])), **o)
            out.append(one[0][0].transpose(0, 1))
            lse.append(one[1][0])
        rest = query.shape[0] - int(cu_seqlens_q[-1])
        out.append(query.new_zeros(rest, *query.shape[1:]))
        lse.append(lse[0].new_full((query.shape[1], rest), float("-inf")))
        return torch.cat(out), torch.cat(lse, 1)

    for name, options in (
        ("packed", {}),
        ("packed causal", {"causal": "top_left"}),
        ("packed window", {"window": (7, 3)}),
    ):
        yield Case(
            "attention_varlen", name, inputs, lambda **kw: attention_varlen(**kw, return_lse=True), peer,
            ("query", "key", "value"), ("query", "key", "value"), ("out", "lse"), options,
        )  # fmt: skip
        if quick:
            return


def _cross_cases(quick: bool) -> Iterator[Case]:
    sizes = (2, 4, 2, 50, 90, 32)

    def tiles(g: torch.Generator) -> Inputs:
        made = _qkv(*sizes, layout="BSHD")(g)
        made["visible"] = torch.rand(2, 50, 3, generator=g) > 0.5
        made["visible"][:, :7] = False
        return made

    def padding(g: torch.Generator) -> Inputs:
        made = _qkv(*sizes)(g)
        made["query_padding"] = torch.arange(50).expand(2, 50) >= 40
        made["key_padding"] = torch.arange(90).expand(2, 90) >= 60
        return made

    def peer(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None, tokens_per_tile: int = 1,
             query_padding: Tensor | None = None, key_padding: Tensor | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        if visible is not None:
            seen = visible[:, None, :, torch.arange(key.shape[2]) // tokens_per_tile]
        else:
            assert query_padding is not None
            assert key_padding is not None
            seen = ~(query_padding[:, None, :, None] & key_padding[:, None, None, :])
        return dense_attention(query, key, value, seen, None, None, None)

    for name, inputs, options in (("tiles", tiles, {"tokens_per_tile": 30}), ("both padding", padding, {})):
        yield Case(
            "cross_attention", name, inputs, lambda **kw: cross_attention(**kw, return_lse=True), peer,
            ("query", "key", "value"), ("query", "key", "value"), ("out", "lse"), options,
        )  # fmt: skip
        if quick:
            return


# --- merging split attention ---

_MERGE = [  # name, (splits, rows..., D), layout
    ("two halves", (2, 2, 3, 37, 64), "plain"),
    ("long rows", (5, 3, 9, 160), "plain"),
    ("token major", (3, 2, 4, 19, 72), "BSHD"),
    ("odd width", (4, 23, 13), "plain"),
    ("sliced", (3, 2, 11, 24), "sliced"),
    ("many splits", (40, 7, 16), "plain"),
    ("parts that saw nothing", (4, 2, 17, 40), "empty"),
    ("one row", (2, 8), "plain"),
    ("one part", (1, 3, 5, 32), "plain"),
    ("no parts", (0, 3, 5, 8), "plain"),
    ("no rows", (2, 0, 8), "plain"),
]  # fmt: skip


def _merge_case(name: str, shape: tuple[int, ...], layout: str) -> Case:
    def inputs(g: torch.Generator) -> Inputs:
        if layout == "BSHD":
            n, b, h, s, d = shape
            outputs = torch.randn(n, b, s, h, d, generator=g, dtype=torch.float64).transpose(2, 3)
        elif layout == "sliced":
            outputs = torch.randn(*shape[:-2], 2 * shape[-2] + 1, shape[-1] + 3, generator=g, dtype=torch.float64)
            outputs = outputs[..., 1::2, 3:]
        else:
            outputs = torch.randn(shape, generator=g, dtype=torch.float64)
        logsumexps = 4 * torch.randn(shape[:-1], generator=g, dtype=torch.float64)
        if layout == "empty":
            logsumexps[1:3, ..., ::2] = -torch.inf
            logsumexps[..., 3] = -torch.inf
            outputs[:, ..., 3, :] = 0
        # What the kernels are given, so that the exact result is that of the same numbers.
        return {"outputs": outputs, "logsumexps": logsumexps.float().double()}

    return Case(
        "merge_attention", name, inputs, lambda **kw: merge_attention(**kw), _merge_peer,
        ("outputs",), ("outputs", "logsumexps"), ("out", "lse"),
    )  # fmt: skip


def _merge_peer(outputs: Tensor, logsumexps: Tensor) -> tuple[Tensor, Tensor]:
    """As written with softmax: the products in fp32, rows without weight set to 0."""
    if not outputs.shape[0]:
        return outputs.sum(0), logsumexps.sum(0) - torch.inf
    dead = (logsumexps == -torch.inf).all(0)
    weights = torch.softmax(logsumexps.masked_fill(dead, 0.0), 0).masked_fill(dead, 0.0)[..., None]
    lse = torch.logsumexp(logsumexps.masked_fill(dead, 0.0), 0).masked_fill(dead, -torch.inf)
    return (weights * outputs).sum(0).to(outputs.dtype), lse


def _merge_cases(quick: bool) -> Iterator[Case]:
    for row in _MERGE[:: 3 if quick else 1]:
        yield _merge_case(*row)


# --- patch embedding ---

_PATCH = [  # name, pixel shape, weight shape, pixels uint8, layout, prefix tokens, position rows (-1: tokens), bias
    ("float", (2, 3, 32, 40), (40, 3, 8, 8), False, "BCHW", 0, 0, True),
    ("uint8 with everything", (2, 3, 33, 50), (24, 3, 16, 16), True, "BCHW", 2, -1, True),
    ("channels last", (1, 28, 42, 3), (17, 3, 14, 14), True, "BHWC", 1, 6, True),
    ("video", (2, 4, 3, 20, 20), (9, 3, 2, 10, 10), False, "BTCHW", 1, -1, False),
    ("video channels last", (1, 5, 16, 24, 3), (48, 3, 2, 8, 8), True, "BTHWC", 0, 0, True),
    ("odd", (3, 1, 7, 9), (5, 1, 3, 2), False, "BCHW", 0, 0, False),
    ("no images", (0, 3, 16, 16), (8, 3, 8, 8), False, "BCHW", 1, -1, True),
]  # fmt: skip


def _patch_case(
    name: str,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    byte: bool,
    layout: str,
    prefix: int,
    position: int,
    bias: bool,
) -> Case:
    def inputs(g: torch.Generator) -> Inputs:
        made: Inputs = {"weight": torch.randn(*weight, generator=g, dtype=torch.float64) / 8}
        made["pixels"] = (
            torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
            if byte
            else torch.randn(*shape, generator=g, dtype=torch.float64)
        )
        if bias:
            made["bias"] = torch.randn(weight[0], generator=g, dtype=torch.float64)
        if prefix:
            made["prefix"] = torch.randn(prefix, weight[0], generator=g, dtype=torch.float64)
        if position:
            patches = _peer_tokens(made["pixels"].double(), made["weight"], layout).shape[1]
            rows = patches + prefix if position < 0 else patches
            made["position"] = torch.randn(rows, weight[0], generator=g, dtype=torch.float64)
        if byte:
            made["mean"], made["std"] = [0.48, 0.46, 0.41][: weight[1]], [0.27, 0.26, 0.28][: weight[1]]
        return made

    tensors = (
        "weight",
        *(("bias",) if bias else ()),
        *(("prefix",) if prefix else ()),
        *(("position",) if position else ()),
    )
    floats = (*tensors, *(() if byte else ("pixels",)))
    return Case(
        "patch_embed",
        name,
        inputs,
        lambda **kw: (patch_embed(**kw),),
        _patch_peer,
        floats,
        floats,
        options={"layout": layout},
    )


def _peer_tokens(x: Tensor, weight: Tensor, layout: str, bias: Tensor | None = None) -> Tensor:
    """Convolution with stride = kernel on (B, C, [T,] H, W)."""
    x = {"BCHW": x, "BHWC": x.movedim(-1, 1), "BTCHW": x.movedim(1, 2), "BTHWC": x.movedim(-1, 1)}[layout]
    convolve = F.conv2d if weight.dim() == 4 else F.conv3d
    return convolve(x, weight, bias, stride=tuple(weight.shape[2:])).flatten(2).mT


def _patch_peer(pixels: Tensor, weight: Tensor, layout: str, bias: Tensor | None = None, prefix: Tensor | None = None,
                position: Tensor | None = None, mean: list[float] | None = None, std: list[float] | None = None) -> tuple[Tensor]:  # fmt: skip
    x = pixels
    if pixels.dtype == torch.uint8:
        shape = [1] * x.dim()
        shape[layout.index("C")] = -1
        wide = torch.promote_types(weight.dtype, torch.float32)
        x = (
            (x.to(wide) / 255 - torch.tensor(mean, dtype=wide).view(shape)) / torch.tensor(std, dtype=wide).view(shape)
        ).to(weight.dtype)
    tokens = _peer_tokens(x, weight, layout, bias)
    if position is not None and position.shape[0] == tokens.shape[1]:
        tokens = tokens + position
    if prefix is not None:
        tokens = torch.cat([prefix.expand(tokens.shape[0], -1, -1), tokens], 1)
    if position is not None and position.shape[0] == tokens.shape[1] and prefix is not None:
        tokens = tokens + position
    return (tokens,)


def _packed_case(order: str, shape: tuple[int, ...]) -> Case:
    channels, patch = shape[1], shape[2:]

    def inputs(g: torch.Generator) -> Inputs:
        count = channels * torch.tensor(patch).prod().item()
        return {
            "patches": torch.randn(2, 19, int(count), generator=g, dtype=torch.float64),
            "weight": torch.randn(*shape, generator=g, dtype=torch.float64) / 8,
            "bias": torch.randn(shape[0], generator=g, dtype=torch.float64),
        }

    def peer(patches: Tensor, weight: Tensor, bias: Tensor, order: str) -> tuple[Tensor]:
        rows = weight.flatten(1) if order.startswith("C") else weight.movedim(1, -1).flatten(1)
        return (F.linear(patches, rows, bias),)

    names = ("patches", "weight", "bias")
    return Case(
        "patch_embed_packed",
        order,
        inputs,
        lambda **kw: (patch_embed_packed(**kw),),
        peer,
        names,
        names,
        options={"order": order},
    )


def _patch_cases(quick: bool) -> Iterator[Case]:
    for row in _PATCH[:: 3 if quick else 1]:
        yield _patch_case(*row)
    for order, shape in (
        ("CPP", (12, 3, 5, 4)),
        ("PPC", (12, 3, 5, 4)),
        ("CTPP", (8, 3, 2, 6, 6)),
        ("TPPC", (8, 3, 2, 6, 6)),
    ):
        yield _packed_case(order, shape)
        if quick:
            return


# --- contrastive losses ---

_LOSSES: list[tuple[str, tuple[int, int, int], Inputs]] = [  # name, (M, N, D), options
    ("square", (45, 45, 64), {}),
    ("normalised", (70, 70, 33), {"normalize": True}),
    ("rectangular", (20, 53, 48), {"label_offset": 9, "symmetric": False}),
    ("groups", (64, 64, 40), {"labels": 8, "label_smoothing": 0.1}),
    ("one pair", (1, 1, 7), {}),
    ("several tiles", (1100, 1030, 24), {"labels": 300, "normalize": True}),
]  # fmt: skip


def _loss_inputs(
    sizes: tuple[int, int, int], groups: int, sigmoid: bool, normalize: bool
) -> Callable[[torch.Generator], Inputs]:
    m, n, d = sizes

    def make(g: torch.Generator) -> Inputs:
        made: Inputs = {
            "image": torch.randn(m, d, generator=g, dtype=torch.float64),
            "text": torch.randn(n, d, generator=g, dtype=torch.float64),
            "logit_scale": torch.tensor(20.0 if normalize else 3.0 / d**0.5, dtype=torch.float64),
        }
        if groups:
            made["labels"] = tuple(torch.randint(0, groups, (k,), generator=g) for k in (m, n))
        if sigmoid:
            made["logit_bias"] = torch.tensor(-4.0, dtype=torch.float64)
        return made

    return make


def _logits(image: Tensor, text: Tensor, scale: Tensor, normalize: bool) -> Tensor:
    """As models write it: normalisation and product in the features' dtype, the rest in fp32."""
    if normalize:
        image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    return scale * (image @ text.mT).to(scale.dtype)


def _positives(z: Tensor, labels: Any, label_offset: int) -> Tensor:
    if isinstance(labels, tuple):
        return labels[0][:, None] == labels[1][None]  # type: ignore[no-any-return]
    return torch.eye(*z.shape, dtype=torch.bool).roll(label_offset, 1)


def _info_nce_peer(image: Tensor, text: Tensor, logit_scale: Tensor, labels: Any = None, label_offset: int = 0, normalize: bool = False,
                   label_smoothing: float = 0.0, symmetric: bool = True) -> tuple[Tensor]:  # fmt: skip
    z = _logits(image, text, logit_scale, normalize)
    positive = _positives(z, labels, label_offset).to(z.dtype)
    total = z.new_zeros(())
    for scores, pairs in ((z, positive), (z.mT, positive.mT))[: 2 if symmetric else 1]:
        some = pairs.sum(1) > 0
        target = pairs[some] / pairs[some].sum(1, keepdim=True)
        total = total + F.cross_entropy(scores[some], target, label_smoothing=label_smoothing)
    return (total / (2 if symmetric else 1),)


def _sigmoid_peer(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    labels: Any = None,
    label_offset: int = 0,
    normalize: bool = False,
) -> tuple[Tensor]:
    z = _logits(image, text, logit_scale, normalize) + logit_bias.to(torch.promote_types(image.dtype, torch.float32))
    positive = _positives(z, labels, label_offset)
    return (-F.logsigmoid(torch.where(positive, z, -z)).sum() / z.shape[0],)


def loss_cases(name: str, sizes: tuple[int, int, int], given: Inputs) -> tuple[Case, Case]:
    """Both losses of (M, N, D) features; `given` are options of the calls, labels the number of groups."""
    options = dict(given)
    groups = int(options.pop("labels", 0))
    normalize = bool(options.get("normalize", False))
    shared = {key: value for key, value in options.items() if key not in ("label_smoothing", "symmetric")}
    return (
        Case(
            "contrastive_loss", name, _loss_inputs(sizes, groups, False, normalize), lambda **kw: (contrastive_loss(**kw),), _info_nce_peer,
            ("image", "text"), ("image", "text", "logit_scale"), ("loss",), options,
        ),
        Case(
            "sigmoid_loss", name, _loss_inputs(sizes, groups, True, normalize), lambda **kw: (sigmoid_loss(**kw),), _sigmoid_peer,
            ("image", "text"), ("image", "text", "logit_scale", "logit_bias"), ("loss",), shared,
        ),
    )  # fmt: skip


def _loss_cases(quick: bool) -> Iterator[Case]:
    for row in _LOSSES[:: 3 if quick else 1]:
        yield from loss_cases(*row)
