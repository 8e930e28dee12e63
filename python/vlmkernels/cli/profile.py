"""`vlmkernels profile`: an operator's CUDA kernels on the emulator, with the counters of every launch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_profile_arguments", "run_profile"]


@dataclass(frozen=True)
class Option:
    """A size of the problem on the command line."""

    name: str
    default: int
    help: str


@dataclass(frozen=True)
class Operator:
    """How to call an operator of given sizes: `call` takes the parsed options, a dtype and whether gradients are wanted, and returns what it computed."""

    kernel: str  # what backends know it by
    options: tuple[Option, ...]
    call: Callable[[argparse.Namespace, Any, bool], tuple[Tensor, ...]]


def _merge_attention(options: argparse.Namespace, dtype: Any, gradients: bool) -> tuple[Tensor, ...]:
    import torch

    import vlmkernels

    rows = (options.parts, options.batch, options.heads, options.seqlen)
    outputs = torch.randn(*rows, options.head_dim).to(dtype).requires_grad_(gradients)
    logsumexps = torch.randn(rows).requires_grad_(gradients)
    return vlmkernels.merge_attention(outputs, logsumexps)


def _attention(options: argparse.Namespace, dtype: Any, gradients: bool) -> tuple[Tensor, ...]:
    import torch

    import vlmkernels

    def one(heads: int, seqlen: int) -> Tensor:
        return torch.randn(options.batch, heads, seqlen, options.head_dim).to(dtype).requires_grad_(gradients)

    keys = options.keys or options.seqlen
    groups = options.key_heads or options.heads
    causal: Literal["bottom_right"] | None = "bottom_right" if options.causal else None
    inputs = one(options.heads, options.seqlen), one(groups, keys), one(groups, keys)
    return vlmkernels.attention(*inputs, causal=causal, return_lse=True)  # type: ignore[no-any-return]


def _features(options: argparse.Namespace, dtype: Any, gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides, and a scale at which logits are a few units apart."""
    import torch

    image, text = (
        torch.randn(rows, options.width).to(dtype).requires_grad_(gradients)
        for rows in (options.images, options.texts or options.images)
    )
    return image, text, torch.tensor(2 / options.width**0.5, requires_grad=gradients)


def _contrastive_loss(options: argparse.Namespace, dtype: Any, gradients: bool) -> tuple[Tensor, ...]:
    import vlmkernels

    return (vlmkernels.contrastive_loss(*_features(options, dtype, gradients), normalize=bool(options.normalize)),)


def _sigmoid_loss(options: argparse.Namespace, dtype: Any, gradients: bool) -> tuple[Tensor, ...]:
    import torch

    import vlmkernels

    bias = torch.tensor(-10.0, requires_grad=gradients)
    inputs = *_features(options, dtype, gradients), bias
    return (vlmkernels.sigmoid_loss(*inputs, normalize=bool(options.normalize)),)


_LOSS_OPTIONS = (
    Option("images", 512, "rows"),
    Option("texts", 0, "columns; 0: as many"),
    Option("width", 512, "of the features"),
    Option("normalize", 0, "1: by the kernels"),
)


def _patch_embed(options: argparse.Namespace, dtype: Any, gradients: bool) -> tuple[Tensor, ...]:
    import torch

    import vlmkernels

    shape = (options.batch, 3, options.size, options.size)
    layout: Literal["BCHW", "BHWC"] = "BHWC" if options.channels_last else "BCHW"
    if layout == "BHWC":
        shape = (options.batch, options.size, options.size, 3)
    if options.bytes:
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    else:
        pixels = torch.randn(shape).to(dtype).requires_grad_(gradients)
    weight = torch.randn(options.embed, 3, options.patch, options.patch).to(dtype).requires_grad_(gradients)
    bias, prefix = (torch.randn(n).to(dtype).requires_grad_(gradients) for n in ((options.embed,), (1, options.embed)))
    norm = {"mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)} if options.bytes else {}
    return (vlmkernels.patch_embed(pixels, weight, bias, prefix=prefix, layout=layout, **norm),)  # type: ignore[arg-type]


OPERATORS = {
    "attention": Operator(
        "attention",
        (
            Option("batch", 1, ""),
            Option("heads", 4, "of queries"),
            Option("key_heads", 0, "0: as many"),
            Option("seqlen", 197, "queries"),
            Option("keys", 0, "0: as many"),
            Option("head_dim", 64, ""),
            Option("causal", 0, "1: yes"),
        ),
        _attention,
    ),
    "merge_attention": Operator(
        "merge_attention",
        (
            Option("parts", 4, "attentions that are merged"),
            Option("batch", 1, ""),
            Option("heads", 8, ""),
            Option("seqlen", 197, "queries"),
            Option("head_dim", 64, ""),
        ),
        _merge_attention,
    ),
    "contrastive_loss": Operator("contrastive", _LOSS_OPTIONS, _contrastive_loss),
    "sigmoid_loss": Operator("sigmoid", _LOSS_OPTIONS, _sigmoid_loss),
    "patch_embed": Operator(
        "patch_embed",
        (
            Option("batch", 1, ""),
            Option("size", 224, "of images"),
            Option("patch", 14, ""),
            Option("embed", 256, ""),
            Option("bytes", 1, "pixels are uint8; 0: of the dtype"),
            Option("channels_last", 0, "1: yes"),
        ),
        _patch_embed,
    ),
}


def add_profile_arguments(parser: argparse.ArgumentParser) -> None:
    operators = parser.add_subparsers(dest="operator", required=True, metavar=" | ".join(OPERATORS))
    for name, operator in OPERATORS.items():
        one = operators.add_parser(name, help=f"sizes of {name}")
        for option in operator.options:
            text = f"{option.help} (default %(default)s)".strip()
            one.add_argument(f"--{option.name.replace('_', '-')}", type=int, default=option.default, help=text)
        one.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
        one.add_argument("--backward", action="store_true", help="the gradients too")


def run_profile(options: argparse.Namespace) -> int:
    """Prints the emulator's summary of every launch."""
    import torch

    from vlmkernels import backends

    operator, dtype = OPERATORS[options.operator], getattr(torch, options.dtype)
    if against := backends.reasons("emulator", operator.kernel, "cpu", dtype):
        print(f"{options.operator} cannot be profiled: {'; '.join(against)}")
        return 1
    sizes = ", ".join(f"{option.name} {getattr(options, option.name)}" for option in operator.options)
    print(f"{options.operator} in {options.dtype}: {sizes}")
    torch.manual_seed(0)
    with backends.use_backend("emulator"), backends.emulation(counters=True) as launches:
        results = operator.call(options, dtype, options.backward)
        if options.backward:
            torch.autograd.backward(results, [torch.randn_like(result) for result in results])
    for launch in launches:
        plan = launch.plan
        print(
            f"\n{plan['kernel']}: grid {_text(plan['grid'])}, block {_text(plan['block'])}, {plan['shared_bytes']} bytes of dynamic shared memory"
        )
        print(launch.report["summary"])
    return 0


def _text(dim3: tuple[int, int, int]) -> str:
    return " x ".join(str(n) for n in dim3)
