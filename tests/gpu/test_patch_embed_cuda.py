"""Patch embedding on a GPU: full sizes, streams and graphs. The grid of cases runs on a GPU in tests/ops/test_accuracy.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkernels as vk
from vlmkernels import backends
from vlmkernels.verify.rule import compare

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no GPU"),
]

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if against := backends.reasons("cuda", "patch_embed", "cuda", torch.bfloat16):
        pytest.skip("; ".join(against))


def image(byte: bool, batch: int, size: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    shape = (batch, size, size, 3) if channels_last else (batch, 3, size, size)
    if byte:
        return torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    return torch.randn(shape, device="cuda").to(dtype)


def parameters(embed: int, patch: int, tokens: int, dtype: torch.dtype) -> dict[str, Tensor]:
    sizes = {"weight": (embed, 3, patch, patch), "bias": (embed,), "prefix": (1, embed), "position": (tokens, embed)}
    return {
        name: (torch.randn(size, device="cuda") / (patch * 3 if name == "weight" else 1)).to(dtype)
        for name, size in sizes.items()
    }


def peer(pixels: Tensor, layout: str, weight: Tensor, bias: Tensor, prefix: Tensor, position: Tensor) -> Tensor:
    """As models write it: normalisation in fp32, a convolution in the dtype, and what is added."""
    x = pixels.movedim(-1, 1) if layout == "BHWC" else pixels
    if pixels.dtype == torch.uint8:
        mean, std = (torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in (MEAN, STD))
        x = ((x.float() / 255 - mean) / std).to(weight.dtype)
    tokens = torch.nn.functional.conv2d(x, weight, bias, stride=weight.shape[-1]).flatten(2).mT
    return torch.cat([prefix.expand(tokens.shape[0], -1, -1), tokens], 1) + position


def gradients(compute: Any, pixels: Tensor, tensors: dict[str, Tensor]) -> list[Tensor]:
    leaves = {name: t.detach().requires_grad_() for name, t in tensors.items()}
    x = pixels.detach().requires_grad_() if pixels.is_floating_point() else pixels
    out = compute(x, **leaves)
    weights = torch.randn(out.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    inputs = [*leaves.values(), *([x] if x.requires_grad else [])]
    return [out.detach(), *torch.autograd.grad(out, inputs, weights.bfloat16().to(out.dtype))]


SHAPES = [(8, 224, 14, 1024), (4, 336, 14, 1024), (8, 224, 16, 768), (3, 384, 14, 1152), (2, 224, 32, 770)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda d: str(d).removeprefix("torch."))  # fmt: skip
@pytest.mark.parametrize("layout", ["BCHW", "BHWC"])
@pytest.mark.parametrize("byte", [True, False], ids=["uint8", "float"])
@pytest.mark.parametrize(("batch", "size", "patch", "embed"), SHAPES)
def test_encoders(batch: int, size: int, patch: int, embed: int, byte: bool, layout: str, dtype: torch.dtype) -> None:
    pixels = image(byte, batch, size, dtype, layout == "BHWC")
    tensors = parameters(embed, patch, (size // patch) ** 2 + 1, dtype)
    norm: dict[str, Any] = {"mean": MEAN, "std": STD} if byte else {}

    def ours(x: Tensor, **kw: Tensor) -> Tensor:
        return vk.patch_embed(x, **kw, **norm, layout=layout)  # type: ignore[arg-type,no-any-return]

    found = gradients(ours, pixels, tensors)
    again = gradients(ours, pixels, tensors)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)), "the same bits every time"
    expected = gradients(lambda x, **kw: peer(x, layout, **kw), pixels, tensors)
    wide = {name: t.double() for name, t in tensors.items()}
    with backends.use_backend("reference"):
        exact = gradients(ours, pixels if byte else pixels.double(), wide)
    for name, f, p, e in zip(("out", *tensors, "pixels"), found, expected, exact, strict=False):
        finding = compare(name, f, p, e, gradient=name != "out")
        assert finding.passed, str(finding)


def test_it_never_waits_for_the_gpu() -> None:
    pixels = image(True, 4, 224, torch.bfloat16, False)
    tensors = parameters(768, 16, 197, torch.bfloat16)
    expected = vk.patch_embed(pixels, **tensors, mean=MEAN, std=STD)  # the constants are copied once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = gradients(lambda x, **kw: vk.patch_embed(x, **kw, mean=MEAN, std=STD), pixels, tensors)[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found, expected)


def test_in_a_graph() -> None:
    pixels = image(True, 4, 224, torch.bfloat16, True)
    tensors = {name: t.requires_grad_() for name, t in parameters(768, 16, 197, torch.bfloat16).items()}
    weights = torch.randn(4, 197, 768, device="cuda").bfloat16()

    def step() -> tuple[Tensor, ...]:
        out = vk.patch_embed(pixels, **tensors, mean=MEAN, std=STD)
        return out, *torch.autograd.grad(out, list(tensors.values()), weights)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    pixels.random_(0, 256)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(found, step(), strict=True))


@pytest.mark.parametrize("order", ["CPP", "PPC"])
def test_packed_patches_are_those_of_an_image(order: str) -> None:
    pixels = image(False, 2, 224, torch.bfloat16, False)
    tensors = parameters(1152, 14, 256, torch.bfloat16)
    patches = pixels.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5)
    patches = patches if order == "CPP" else patches.permute(0, 1, 2, 4, 5, 3)
    packed = patches.reshape(2, 256, -1)
    weight, bias, position = (tensors[name] for name in ("weight", "bias", "position"))
    expected = vk.patch_embed(pixels, weight, bias, position=position, layout="BCHW")
    found = vk.patch_embed_packed(packed, weight, bias, position=position, order=order)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
