"""Patch embedding on the emulator: what the grid of cases does not show. Every launch is checked for races, accesses outside the tensors and uninitialised reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkernels as vk
from vlmkernels import backends, images
from vlmkernels.reference import patch_embed as reference
from vlmkernels.verify.rule import compare

WHY_NOT = backends.native_error if backends.native is None else images.missing("patch_embed")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "kernels are there")

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
MEAN, STD = [0.48, 0.46, 0.41, 0.3], [0.27, 0.26, 0.28, 0.2]


def dtype_name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


class Problem:
    """Inputs of a call, PyTorch's way to the same result in their dtype, and the exact one."""

    def __init__(self, pixels: Tensor, weight: tuple[int, ...], dtype: torch.dtype, form: str, *, prefix: int = 0, position: bool = False,
                 bias: bool = True, normalise: bool = True, prefix_at: str = "front", out_dtype: torch.dtype | None = None) -> None:  # fmt: skip
        self.form, self.dtype, self.prefix_at, self.out_dtype = form, dtype, prefix_at, out_dtype or dtype
        mean, std = (torch.tensor(values[: weight[1]]) if normalise else None for values in (MEAN, STD))
        self.mean, self.std = mean, std
        g = torch.Generator().manual_seed(7)
        self.tensors: dict[str, Tensor | None] = dict.fromkeys(("pixels", "weight", "bias", "position", "prefix"))
        self.tensors["pixels"] = pixels if pixels.dtype == torch.uint8 else pixels.to(dtype)
        self.tensors["weight"] = (torch.randn(weight, generator=g) / torch.Size(weight[1:]).numel() ** 0.5).to(dtype)
        if bias:
            self.tensors["bias"] = torch.randn(weight[0], generator=g).to(dtype)
        if prefix:
            self.tensors["prefix"] = torch.randn(prefix, weight[0], generator=g).to(dtype)
        if position:
            tokens = self.peer_tokens(self.tensors).shape[1]
            self.tensors["position"] = torch.randn(tokens, weight[0], generator=g).to(dtype)

    def call(self, tensors: dict[str, Tensor | None], out_dtype: torch.dtype) -> Tensor:
        options: dict[str, Any] = {"mean": self.mean, "std": self.std, "out_dtype": out_dtype}
        if self.form in reference.LAYOUTS:
            return vk.patch_embed(**tensors, **options, layout=self.form, prefix_at=self.prefix_at)  # type: ignore[arg-type]
        given = {"patches": tensors["pixels"], **{name: tensors[name] for name in ("weight", "bias", "position")}}
        return vk.patch_embed_packed(**given, **options, order=self.form)  # type: ignore[arg-type]

    def peer_tokens(self, tensors: dict[str, Tensor | None]) -> Tensor:
        """The normalised pixels rounded to the dtype, and a matrix product in it."""
        pixels, weight, bias, position, prefix = tensors.values()
        three = weight if weight.dim() == 5 else weight.unsqueeze(2)
        patch = (three.shape[2], three.shape[3], three.shape[4])
        if self.form in reference.LAYOUTS:
            x = reference._normalise(reference.to_canonical(pixels, self.form), self.mean, self.std, torch.float32, 2)
            x = reference.patchify(x, patch)
        else:
            x = reference.reorder_packed(pixels, self.form, three.shape[1], patch)
            x = reference._normalise(x, self.mean, self.std, torch.float32, x.dim() - 4).flatten(-4)
        tokens = torch.nn.functional.linear(x.to(self.dtype), three.flatten(1), bias)
        if prefix is not None:
            ends = [prefix.expand(tokens.shape[0], -1, -1), tokens]
            tokens = torch.cat(ends if self.prefix_at == "front" else ends[::-1], 1)
        return tokens if position is None else tokens + position

    def results(self, compute: Any, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The tokens, and the gradients of all that may have them, weighted by fixed numbers; in another dtype if one is given."""
        leaves = {
            name: t.detach().to(dtype or t.dtype).requires_grad_() if t is not None and t.is_floating_point() else t
            for name, t in self.tensors.items()
        }
        out = compute(leaves, dtype or self.out_dtype)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(11)).to(self.out_dtype).to(out.dtype)
        wanted = {name: t for name, t in leaves.items() if t is not None and t.requires_grad}
        grads = torch.autograd.grad(out, list(wanted.values()), weights)
        return {"out": out.detach(), **dict(zip(wanted, grads, strict=True))}

    def emulated(self) -> dict[str, Tensor]:
        with backends.use_backend("emulator"):
            return self.results(self.call)

    def check(self) -> None:
        found, peer = self.emulated(), self.results(lambda tensors, out: self.peer_tokens(tensors).to(out))
        with backends.use_backend("reference"):
            exact = self.results(self.call, torch.float64)
        for name in exact:
            finding = compare(name, found[name], peer[name], exact[name], gradient=name != "out")
            assert finding.passed, str(finding)


def pixels(*shape: int, byte: bool = False) -> Tensor:
    g = torch.Generator().manual_seed(sum(shape))
    return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8) if byte else torch.randn(shape, generator=g)


def strided(shape: tuple[int, ...], byte: bool) -> Tensor:
    """Every other row and column of a larger image, which starts at an odd place."""
    larger = pixels(*shape[:-2], 2 * shape[-2] + 1, 2 * shape[-1] + 1, byte=byte)
    return larger[..., 1::2, 1::2]


#: name, pixels by whether they are bytes, weight, form, options
PROBLEMS: list[tuple[str, Any, tuple[int, ...], str, dict[str, Any]]] = [
    ("rows of 14", lambda byte: pixels(1, 3, 57, 45, byte=byte), (24, 3, 14, 14), "BCHW", {"prefix": 1, "position": True}),
    ("rows of 14, channels last", lambda byte: pixels(2, 42, 43, 3, byte=byte), (24, 3, 14, 14), "BHWC", {"prefix": 2, "position": True, "prefix_at": "back"}),
    ("rows of 16", lambda byte: pixels(1, 3, 32, 48, byte=byte), (136, 3, 16, 16), "BCHW", {}),
    ("rows of 16, channels last", lambda byte: pixels(1, 32, 48, 3, byte=byte), (136, 3, 16, 16), "BHWC", {}),
    ("rows longer than a tile", lambda byte: pixels(1, 1, 3, 402, byte=byte), (9, 1, 3, 201), "BCHW", {}),
    ("rows longer than a tile, channels last", lambda byte: pixels(1, 4, 130, 3, byte=byte), (9, 3, 2, 65), "BHWC", {}),
    ("four channels last", lambda byte: pixels(2, 8, 12, 4, byte=byte), (16, 4, 4, 4), "BHWC", {}),
    ("many channels last", lambda byte: pixels(1, 4, 6, 150, byte=byte), (16, 150, 2, 2), "BHWC", {"normalise": False}),
    ("single pixels", lambda byte: pixels(1, 4, 5, 7, byte=byte), (10, 4, 1, 1), "BCHW", {}),
    ("strided", lambda byte: strided((2, 3, 21, 29), byte), (16, 3, 7, 7), "BCHW", {}),
    ("transposed", lambda byte: pixels(1, 3, 24, 16, byte=byte).mT, (16, 3, 8, 8), "BCHW", {"normalise": False}),
    ("clip", lambda byte: pixels(1, 4, 3, 28, 28, byte=byte), (40, 3, 2, 14, 14), "BTCHW", {"position": True, "prefix": 1}),
    ("clip, channels last", lambda byte: pixels(2, 3, 16, 24, 3, byte=byte), (40, 3, 2, 8, 8), "BTHWC", {}),
    ("cut already", lambda byte: pixels(2, 37, 588, byte=byte), (24, 3, 14, 14), "CPP", {"position": True}),
    ("cut already, channels last", lambda byte: pixels(1, 37, 588, byte=byte), (24, 3, 14, 14), "PPC", {}),
    ("cut already with time", lambda byte: pixels(1, 70, 1176, byte=byte), (24, 3, 2, 14, 14), "CTPP", {"normalise": False}),
    ("cut already with time, channels last", lambda byte: pixels(2, 9, 1176, byte=byte)[:, ::2], (24, 3, 2, 14, 14), "TPPC", {}),
    ("lines of 27 patches", lambda byte: pixels(2, 3, 42, 384, byte=byte), (24, 3, 14, 14), "BCHW", {"position": True}),
    ("lines of 27 patches, channels last", lambda byte: pixels(2, 42, 384, 3, byte=byte), (24, 3, 14, 14), "BHWC", {}),
    ("lines of 27 patches, cut off behind them", lambda byte: pixels(1, 3, 43, 384, byte=byte)[..., :378], (24, 3, 14, 14), "BCHW", {}),
    ("lines at multiples of 4", lambda byte: pixels(2, 3, 28, 364, byte=byte), (24, 3, 14, 14), "BCHW", {}),
    ("lines at multiples of 4, channels last", lambda byte: pixels(3, 24, 44, 3, byte=byte), (24, 3, 12, 12), "BHWC", {}),
    ("rows of 32, channels last", lambda byte: pixels(1, 64, 96, 3, byte=byte), (24, 3, 32, 32), "BHWC", {}),
    ("rows of 20, channels last", lambda byte: pixels(2, 40, 100, 3, byte=byte), (24, 3, 20, 20), "BHWC", {}),
    ("rows of 22", lambda byte: pixels(2, 3, 44, 88, byte=byte), (24, 3, 22, 22), "BCHW", {}),
    ("odd embedding", lambda byte: pixels(2, 3, 12, 10, byte=byte), (131, 3, 6, 5), "BCHW", {"prefix": 1, "bias": False}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("byte", [True, False], ids=["uint8", "float"])
@pytest.mark.parametrize(("name", "make", "weight", "form", "options"), PROBLEMS, ids=[p[0] for p in PROBLEMS])
def test_every_form(name: str, make: Any, weight: tuple[int, ...], form: str, options: dict[str, Any], byte: bool, dtype: torch.dtype) -> None:  # fmt: skip
    Problem(make(byte), weight, dtype, form, **options).check()


@pytest.mark.parametrize("out_dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_out_dtypes(dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    for embed in (16, 13):
        made = Problem(pixels(2, 3, 16, 24), (embed, 3, 8, 8), dtype, "BCHW", prefix=1, position=True, out_dtype=out_dtype)  # fmt: skip
        assert made.emulated()["out"].dtype == out_dtype
        made.check()


@pytest.mark.parametrize("byte", [True, False], ids=["uint8", "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_schedules_do_not_change_the_bits(dtype: torch.dtype, byte: bool) -> None:
    for name, make, weight, form, options in PROBLEMS[:4]:
        made = Problem(make(byte), weight, dtype, form, **options)
        expected = made.emulated()
        for seed in range(2):
            with backends.emulation(schedule="random", seed=seed):
                found = made.emulated()
            assert all(torch.equal(found[key], expected[key]) for key in expected), name


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_full_blocks_of_patches(dtype: torch.dtype) -> None:
    """As many patches as fill a GPU: blocks of 128, and the weight's gradient in parts."""
    made = Problem(pixels(2, 2, 131, 131), (9, 2, 1, 1), dtype, "BCHW")
    with backends.emulation() as launches:
        found = made.emulated()
    kernels = {launch.plan["kernel"].removeprefix("patch_embed_"): launch.plan for launch in launches}
    name = dtype_name(dtype)
    assert kernels[f"forward_{name}_{name}"]["block"] == (256, 1, 1)
    assert kernels[f"weight_gradient_{name}_{name}"]["grid"][0] > 60
    assert f"weight_parts_{name}" in kernels
    with backends.emulation(schedule="random", seed=3):
        again = made.emulated()
    assert all(torch.equal(again[key], found[key]) for key in found)
    made.check()


def test_trailing_pixels_get_no_gradient() -> None:
    made = Problem(pixels(1, 3, 20, 21), (8, 3, 8, 8), torch.float32, "BCHW")
    grad = made.emulated()["pixels"]
    assert not grad[:, :, 16:].any()
    assert not grad[:, :, :, 16:].any()
    assert grad[:, :, :16, :16].all()


@pytest.mark.parametrize("form", ["BCHW", "BHWC"])
def test_what_is_not_finite_stays_where_it_is(form: str) -> None:
    """In its patch, and in the columns of the weight's gradient that meet it."""
    image = pixels(1, 3, 24, 24) if form == "BCHW" else pixels(1, 24, 24, 3)
    made = Problem(image, (8, 3, 8, 8), torch.bfloat16, form, normalise=False)
    clean = made.emulated()
    channel_first = image if form == "BCHW" else image.permute(0, 3, 1, 2)
    for value in (float("nan"), float("inf")):
        channel_first[0, 1, 9, 10] = value  # patch 4, row 1, column 2
        made.tensors["pixels"] = image.bfloat16()
        found = made.emulated()
        others = [n for n in range(9) if n != 4]
        assert not found["out"][0, 4].isfinite().any()
        assert torch.equal(found["out"][0, others], clean["out"][0, others])
        at = torch.zeros(3, 8, 8, dtype=torch.bool)
        at[1, 1, 2] = True
        assert torch.equal(found["weight"][:, ~at], clean["weight"][:, ~at])
        assert not found["weight"][:, at].isfinite().any()
        assert found["weight"][:, at].isnan().all() == (value != value)


def test_nothing_to_embed() -> None:
    """No images, no patches, no tokens: sums are zero."""
    for shape, prefix, tokens in (((0, 3, 16, 16), 1, 5), ((2, 3, 5, 16), 1, 1), ((2, 3, 5, 16), 0, 0)):
        made = Problem(pixels(*shape), (8, 3, 8, 8), torch.bfloat16, "BCHW", prefix=prefix)
        found = made.emulated()
        assert found["out"].shape == (shape[0], tokens, 8)
        assert not found["weight"].any()
        assert not found["bias"].any()
        assert not found["pixels"].any()


def counters(made: Problem) -> dict[str, dict[str, Any]]:
    with backends.emulation(counters=True, checks=False) as launches:
        made.emulated()
    return {launch.plan["kernel"].removeprefix("patch_embed_"): launch.report["counters"] for launch in launches}


FORMS = [
    ("BCHW", (1, 3, 112, 224), 14), ("BHWC", (1, 112, 224, 3), 14),
    ("BCHW", (1, 3, 128, 224), 16), ("BHWC", (1, 128, 224, 3), 16),
    ("BCHW", (1, 3, 70, 384), 14), ("BHWC", (1, 70, 384, 3), 14), ("BCHW", (1, 3, 112, 336), 14), ("BCHW", (1, 3, 256, 256), 32),
]  # fmt: skip


def traffic(made: Problem) -> tuple[dict[str, Any], int]:
    """Of the forward pass; and its blocks."""
    with backends.use_backend("emulator"), backends.emulation(counters=True, checks=False) as launches:
        made.call(made.tensors, torch.bfloat16)
    (launch,) = launches
    return launch.report["counters"], launch.plan["grid"][0]


@pytest.mark.parametrize(("form", "shape", "size"), FORMS)
def test_memory_is_used_well(form: str, shape: tuple[int, ...], size: int) -> None:
    """Bytes are read once for each block of columns, in whole sectors; tokens are written once."""
    weight = (256, 3, size, size)
    made = Problem(pixels(*shape, byte=True), weight, torch.bfloat16, form, bias=False)
    found, blocks = traffic(made)
    # Numbers are normalised on their way through registers, and their tiles are cut as those of bytes are: copies are those of the weight alone.
    weights = traffic(Problem(pixels(*shape), weight, torch.bfloat16, form, bias=False))[0]["global_async"]
    assert weights["bytes"] == made.tensors["weight"].numel() * 2 * blocks // 2
    means = blocks * 3 * 3 * 4  # a mean and, twice, a deviation of each channel and block
    patches = made.peer_tokens(made.tensors).shape[1]
    image = 2 * patches * 3 * size * size  # bytes: two blocks of columns
    by_lines = found["global_load"]["bytes"] == means
    assert by_lines == (form == "BHWC" or size == 14)
    if by_lines:
        copies = found["global_async"]
        # Where a block ends within a line, what is next to it comes along.
        assert image <= copies["bytes"] - weights["bytes"] <= 1.02 * image
        assert image >= 0.9 * 32 * (copies["sectors"] - weights["sectors"])
    else:
        assert found["global_load"]["bytes"] == image + means
        assert found["global_load"]["ideal_sectors"] >= 0.98 * found["global_load"]["sectors"]
    assert found["global_store"]["bytes"] == patches * 256 * 2
    assert found["global_store"]["ideal_sectors"] == found["global_store"]["sectors"]
    assert found["shared_load"]["wavefronts"] == found["shared_load"]["ideal_wavefronts"]
    # All but the zeros in columns that no pixel has, which are written twice a block.
    most = 1.04 if form == "BHWC" and size == 14 else 1.003
    assert found["shared_store"]["wavefronts"] <= most * found["shared_store"]["ideal_wavefronts"]


def test_tensor_core_work_is_little_more_than_needed() -> None:
    for form, shape, size in FORMS:
        made = Problem(pixels(*shape, byte=True), (128, 3, size, size), torch.bfloat16, form)
        (forward, *_) = counters(made).values()
        patches = made.peer_tokens(made.tensors).shape[1]
        useful = 2 * (-(-patches // 64) * 64) * 128 * 3 * size * size
        assert forward["tensor_flops"] <= 1.04 * useful
