"""Launch plans of patch embedding: how images are cut into tiles. No GPU and no kernels are needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vlmkernels import backends
from vlmkernels.reference.patch_embed import to_canonical

pytestmark = pytest.mark.skipif(backends.native is None, reason=backends.native_error)


def forward(pixels: Tensor, weight: tuple[int, ...], dtype: torch.dtype = torch.bfloat16, packed: int = 0, prefix: int = 0) -> list[dict[str, Any]]:  # fmt: skip
    """Of pixels (B, T, C, H, W) with any strides, or (B, N, K)."""
    count = pixels.shape[1]
    if packed == 0:
        count = 1
        for size, patch in zip((pixels.shape[1], *pixels.shape[3:]), weight[2:], strict=True):
            count *= size // patch
    out = torch.zeros(pixels.shape[0], count + prefix, weight[0], dtype=dtype)
    prefixes = torch.zeros(prefix, weight[0], dtype=dtype) if prefix else None
    return backends.native.patch_embed_forward_plan(  # type: ignore[no-any-return,union-attr]
        pixels, torch.zeros(weight, dtype=dtype), None, None, prefixes, None, None, packed, False, out
    )


def image(*shape: int, layout: str = "BCHW", dtype: torch.dtype = torch.uint8, offset: int = 0) -> Tensor:
    memory = torch.zeros(torch.Size(shape).numel() + 64, dtype=dtype)
    start = (-memory.data_ptr() // memory.element_size()) % 16 + offset
    return to_canonical(memory[start : start + torch.Size(shape).numel()].view(shape), layout)


def tiling(plan: dict[str, Any]) -> dict[str, int]:
    """PatchTiling in PatchLaunch, found by its end: what follows it in the struct is 48 bytes."""
    numbers = torch.frombuffer(bytearray(plan["parameters"][-TILING_END:]), dtype=torch.int32).tolist()
    names = ("channels", "positions", "run", "tile", "vector", "granule", "frames", "rows")
    return {**dict(zip(names, numbers, strict=False)), "line": numbers[16], "line_access": numbers[17]}


#: Bytes from PatchTiling to the end of PatchLaunch: 8 numbers, 4 strides, 5 numbers and a gap; 5 numbers, 2 flags, 4 numbers, a pointer.
TILING_END = 8 * 4 + 4 * 8 + 6 * 4 + 5 * 4 + 4 + 4 * 4 + 8

CUTS = [  # pixels, weight, packed, what is expected
    (image(1, 3, 224, 224), (64, 3, 1, 14, 14), 0, {"channels": 1, "run": 14, "tile": 112, "vector": 2, "line": 16, "line_access": 16}),
    (image(1, 224, 224, 3, layout="BHWC"), (64, 3, 1, 14, 14), 0, {"channels": 3, "run": 14, "tile": 42, "vector": 2, "line": 16}),
    (image(1, 3, 364, 364), (64, 3, 1, 14, 14), 0, {"line": 26, "line_access": 4}),
    (image(1, 3, 224, 378), (64, 3, 1, 14, 14), 0, {"line": 0}),  # lines at multiples of 2
    (image(1, 3, 224, 224, dtype=torch.bfloat16), (64, 3, 1, 14, 14), 0, {"line": 0}),
    (image(1, 3, 280, 28), (64, 3, 1, 14, 14), 0, {"line": 0}),  # too many of them
    (image(1, 3, 224, 224), (64, 3, 1, 16, 16), 0, {"channels": 1, "run": 16, "tile": 128, "vector": 16, "line": 0}),
    (image(1, 3, 224, 225), (64, 3, 1, 16, 16), 0, {"run": 16, "tile": 128, "vector": 1}),
    (image(1, 3, 224, 224, offset=2), (64, 3, 1, 16, 16), 0, {"vector": 2}),
    (image(1, 224, 224, 3, layout="BHWC"), (64, 3, 1, 16, 16), 0, {"channels": 3, "tile": 32, "vector": 16}),
    (image(1, 64, 64, 4, layout="BHWC"), (64, 4, 1, 8, 8), 0, {"channels": 4, "run": 8, "tile": 32, "vector": 1}),
    (image(1, 3, 64, 64, dtype=torch.bfloat16), (64, 3, 1, 32, 32), 0, {"run": 32, "tile": 128, "vector": 8}),
    (torch.zeros(1, 40, 588, dtype=torch.bfloat16), (64, 3, 1, 14, 14), 1, {"run": 196, "channels": 1, "vector": 4}),
    (torch.zeros(1, 40, 588, dtype=torch.bfloat16), (64, 3, 1, 14, 14), 2, {"run": 196, "channels": 3}),
    (torch.zeros(1, 40, 1536, dtype=torch.bfloat16), (64, 3, 2, 16, 16), 1, {"run": 512, "tile": 128, "vector": 8}),
]  # fmt: skip


@pytest.mark.parametrize(("pixels", "weight", "packed", "expected"), CUTS)
def test_tiles(pixels: Tensor, weight: tuple[int, ...], packed: int, expected: dict[str, int]) -> None:
    (plan,) = forward(pixels, weight, packed=packed)
    found = tiling(plan)
    assert found["granule"] == 16, "the struct is where it was"
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("dtype", "columns"), [(torch.bfloat16, 128), (torch.float16, 128), (torch.float32, 64)])
def test_one_launch_with_blocks_for_patches_and_prefixes(dtype: torch.dtype, columns: int) -> None:
    (plan,) = forward(image(2, 3, 224, 224), (256, 3, 1, 16, 16), dtype, prefix=5)
    name = str(dtype).removeprefix("torch.")
    assert plan["image"] == f"patch_embed/forward_{name}"
    assert plan["kernel"] == f"patch_embed_forward_{name}_uint8"
    assert plan["block"] == (128, 1, 1)  # few patches: 64 a block
    assert plan["grid"] == (-(-2 * 196 // 64) * (256 // columns) + -(-2 * 5 // 8), 1, 1)
    assert plan["shared_bytes"] <= 81 * 1024  # two blocks a multiprocessor of 164 KB


def test_many_patches_get_larger_blocks() -> None:
    pixels = torch.zeros(1, dtype=torch.uint8).expand(64, 1, 3, 224, 224)
    (plan,) = forward(pixels, (1024, 3, 1, 16, 16))
    assert plan["block"] == (256, 1, 1)
    assert plan["grid"] == (64 * 196 // 128 * 8, 1, 1)


def test_nothing_to_do_is_no_launch() -> None:
    assert forward(torch.zeros(0, 1, 3, 32, 32, dtype=torch.uint8), (64, 3, 1, 16, 16)) == []


def test_what_kernels_cannot_count_is_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"at most 2\^15 rows .* got 40000"):
        forward(image(1, 1, 40000, 1), (1, 1, 1, 40000, 1))


def test_gradients_that_are_not_wanted_are_not_computed() -> None:
    pixels, weight = image(2, 3, 32, 32, dtype=torch.float32), torch.zeros(64, 3, 1, 16, 16)
    grad_out, bias = torch.zeros(2, 4, 64), torch.zeros(64)

    def kernels(**wanted: Tensor) -> list[str]:
        grads = [wanted.get(name) for name in ("pixels", "weight", "bias", "position", "prefix")]
        plans = backends.native.patch_embed_backward_plan(grad_out, pixels, weight, bias, None, None, None, None, 0, False, *grads)  # type: ignore[union-attr]  # fmt: skip
        return [plan["kernel"].removeprefix("patch_embed_") for plan in plans]

    assert kernels() == []
    assert kernels(weight=weight) == ["weight_gradient_float32_float32"]
    assert kernels(pixels=pixels) == ["pixel_gradient_float32"]
    assert kernels(bias=bias) == ["token_gradients_float32", "bias_parts_float32"]
