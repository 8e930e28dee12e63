"""Launch plans: which kernel, how many blocks, which bytes. No GPU and no kernels are needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmkernels import backends

pytestmark = pytest.mark.skipif(backends.native is None, reason=backends.native_error)


def plan(shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16, backward: bool = False, outputs: torch.Tensor | None = None) -> dict[str, Any]:  # fmt: skip
    """Of tensors (splits, rows..., D) that all share one element of memory where they are large."""

    def one(size: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        count = 1
        for n in size:
            count *= n
        return torch.zeros(size, dtype=kind) if count < 1 << 20 else torch.zeros(16, dtype=kind)[:1].expand(*size)

    d = shape[-1]
    outputs = one(shape, dtype) if outputs is None else outputs
    if outputs.stride(-1) == 0:  # the last dimension must be a real one
        outputs = torch.zeros(d, dtype=dtype).expand(*shape)
    lses, lse = one(shape[:-1], torch.float32), one(shape[1:-1], torch.float32)
    out = (
        torch.zeros(d, dtype=dtype).expand(*shape[1:])
        if outputs.stride(0) == 0
        else torch.zeros(shape[1:], dtype=dtype)
    )
    if backward:
        return backends.native.merge_attention_backward_plan(out, None, outputs, lses, lse, outputs, lses)
    return backends.native.merge_attention_forward_plan(outputs, lses, out, lse)


@pytest.mark.parametrize(
    ("dtype", "d", "kernel"),
    [
        (torch.bfloat16, 64, "bfloat16_8x16"),
        (torch.float16, 128, "float16_8x16"),
        (torch.bfloat16, 136, "bfloat16_32x16"),
        (torch.float32, 64, "float32_8x16"),
        (torch.float32, 72, "float32_32x16"),
        (torch.bfloat16, 20, "bfloat16_32x0"),
        (torch.float32, 13, "float32_32x0"),
        (torch.float32, 4, "float32_8x16"),
    ],
)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_tile_by_width(dtype: torch.dtype, d: int, kernel: str, backward: bool) -> None:
    found = plan((2, 100, d), dtype, backward)
    assert found["kernel"] == f"merge_{'backward' if backward else 'forward'}_{kernel}"
    assert found["image"] == "merge_attention/merge"
    assert found["block"] == (128, 1, 1)
    rows = 4 if "_32x" in kernel else 16
    assert found["grid"] == (-(-100 // rows), 1, 1)
    assert found["shared_bytes"] == 0


def test_rows_that_are_not_aligned_are_read_by_element() -> None:
    shifted = torch.zeros(2, 5, 72, dtype=torch.bfloat16)[..., 4:68]
    assert plan((2, 5, 64), outputs=shifted)["kernel"].endswith("_32x0")
    apart = torch.zeros(2, 5, 68, dtype=torch.bfloat16)[..., :64]
    assert plan((2, 5, 64), outputs=apart)["kernel"].endswith("_32x0")
    wide = torch.zeros(2, 5, 72, dtype=torch.bfloat16)[..., 8:72]
    assert plan((2, 5, 64), outputs=wide)["kernel"].endswith("_8x16")


def test_many_rows_stay_in_x() -> None:
    """y and z of a grid end at 65,535."""
    found = plan((2, 70_000, 16, 257, 64))
    assert found["grid"] == (70_000 * 16 * 257 // 16, 1, 1)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="split the batch"):
        plan((2, 70_000, 40_000, 8))


def row_sizes(parameters: bytes) -> tuple[int, ...]:
    """MergeProblem.rows, behind dtype, splits and head_dim."""
    return tuple(int(n) for n in torch.frombuffer(bytearray(parameters[24:56]), dtype=torch.int64))


def test_rows_coalesce() -> None:
    """Contiguous tensors have one row dimension, transposed ones keep what they must."""
    assert row_sizes(plan((3, 2, 4, 5, 8))["parameters"]) == (1, 1, 1, 40)
    token_major = torch.zeros(3, 2, 5, 4, 8, dtype=torch.bfloat16).transpose(2, 3)
    assert row_sizes(plan((3, 2, 4, 5, 8), outputs=token_major)["parameters"]) == (1, 2, 4, 5)
    lone = torch.zeros(3, 2, 5, 1, 8, dtype=torch.bfloat16).transpose(2, 3)
    assert row_sizes(plan((3, 2, 1, 5, 8), outputs=lone)["parameters"]) == (1, 1, 1, 10)


def test_parameters_are_the_problem() -> None:
    outputs = torch.zeros(3, 7, 8, dtype=torch.bfloat16)
    parameters = plan((3, 7, 8), outputs=outputs)["parameters"]
    numbers = torch.frombuffer(bytearray(parameters[8:24]), dtype=torch.int64).tolist()
    assert numbers == [3, 8]
    assert int.from_bytes(parameters[56:64], "little") == outputs.data_ptr()
