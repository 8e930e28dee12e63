"""Launch plans of the contrastive losses: which kernels, how many blocks, how much workspace. No GPU and no kernels are needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmkernels import backends

pytestmark = pytest.mark.skipif(backends.native is None, reason=backends.native_error)

SCALE = torch.tensor(1.0)
Plans = tuple[list[dict[str, Any]], int]


def features(rows: int, d: int, dtype: torch.dtype) -> torch.Tensor:
    """All rows share their memory."""
    return torch.zeros(1, d, dtype=dtype).expand(rows, d)


def forward_plan(m: int, n: int, d: int, dtype: torch.dtype = torch.bfloat16, side: int = 0) -> Plans:
    x, y = features(m, d, dtype), features(n, d, dtype)
    return backends.native.contrastive_forward_plan(x, y, SCALE, torch.empty(4, m), torch.empty(4, n), side)  # type: ignore[union-attr]


def backward_plan(m: int, n: int, d: int, dtype: torch.dtype = torch.bfloat16, side: int = 0) -> Plans:
    x, y = features(m, d, dtype), features(n, d, dtype)
    grads = torch.empty(m, d, dtype=dtype), torch.empty(n, d, dtype=dtype), torch.empty(m)
    statistics = (torch.empty(lines, count) for lines in (4, 3) for count in (m, n))
    return backends.native.contrastive_backward_plan(x, y, SCALE, *statistics, *grads, side)  # type: ignore[union-attr]


def sigmoid_plan(m: int, n: int, d: int, dtype: torch.dtype = torch.bfloat16, gradients: bool = True) -> Plans:
    x, y = features(m, d, dtype), features(n, d, dtype)
    grads = (torch.empty(m, d, dtype=dtype), torch.empty(n, d, dtype=dtype), torch.empty(m), torch.empty(m))
    return backends.native.sigmoid_plan(x, y, SCALE, torch.empty(m, dtype=torch.float64), *(grads if gradients else (None,) * 4), 0)  # type: ignore[union-attr]  # fmt: skip


def kernels(plans: Plans) -> list[str]:
    return [plan["kernel"].removeprefix("contrastive_").replace("_bfloat16", "") for plan in plans[0]]


def test_launches_of_one_chunk() -> None:
    assert kernels(forward_plan(1000, 900, 512)) == ["statistics", "merge_statistics"]
    assert kernels(backward_plan(1000, 900, 512)) == ["info_nce", "merge_rows", "products", "finish", "finish"]
    assert kernels(sigmoid_plan(1000, 900, 512)) == ["sigmoid", "merge_rows", "products", "finish", "finish"]
    assert kernels(sigmoid_plan(1000, 900, 512, gradients=False)) == ["sigmoid", "merge_rows"]


def test_blocks() -> None:
    """Tiles of 128 x 128 logits, and of 128 rows x 128 features of both sides; 64 x 64 in fp32."""
    for dtype, side in ((torch.bfloat16, 128), (torch.float16, 128), (torch.float32, 64)):
        name = str(dtype).removeprefix("torch.")
        rows, columns, wide = -(-1000 // side), -(-900 // side), -(-520 // side)
        plans = {plan["kernel"]: plan for plan in (*forward_plan(1000, 900, 520, dtype)[0], *backward_plan(1000, 900, 520, dtype)[0])}  # fmt: skip
        for what, blocks in (("statistics", rows * columns), ("info_nce", rows * columns), ("products", (rows + columns) * wide)):  # fmt: skip
            plan = plans[f"contrastive_{what}_{name}"]
            assert plan["image"] == f"contrastive/loss_{name}"
            assert plan["grid"] == (blocks, 1, 1)
            assert plan["block"] == (128, 1, 1)
            assert plan["shared_bytes"] <= 81 * 1024  # two blocks an SM of 164 KB


def test_a_chunk_of_rows_is_finished_behind_its_last_columns() -> None:
    found = kernels(backward_plan(300, 200, 64, side=128))
    pair = ["info_nce", "merge_rows", "products"]
    assert found == [*pair, *pair, "finish"] * 2 + [*pair, *pair, "finish", "finish"]
    assert kernels(forward_plan(300, 200, 64, side=128)) == ["statistics", "merge_statistics"] * 6


def test_small_weights_are_scaled_in_fp16_only() -> None:
    assert backward_plan(10, 10, 8, torch.float16)[0][0]["kernel"] == "contrastive_range"
    assert sigmoid_plan(10, 10, 8, torch.float16)[0][0]["kernel"] == "contrastive_range"
    for found in (sigmoid_plan(10, 10, 8, torch.float16, gradients=False), backward_plan(10, 10, 8, torch.float32)):
        assert "contrastive_range" not in [plan["kernel"] for plan in found[0]]


@pytest.mark.parametrize("d", [512, 768, 2048])
def test_workspace_is_bounded(d: int) -> None:
    """At 65,536 x 65,536, where the matrix would be 8.6 GB in 16 bit: a chunk of it, and half of the sums of its rows and of all columns."""
    n, side = 65_536, 8192
    forward, backward, sigmoid = (plan(n, n, d)[1] * 4 for plan in (forward_plan, backward_plan, sigmoid_plan))
    assert forward <= 2 * 5 * side * side // 64 * 4
    sums = (n + side) * d * 2  # the other half lies in the gradients
    assert backward <= 2 * side * side + sums + side * side // 64 * 4 + 2 * n * 4
    assert sigmoid <= 2 * side * side + sums + 3 * side * side // 64 * 4 + 2 * n * 4
    # Gradients whose rows are no multiples of 8 bytes have none.
    assert backward_plan(n, n, d + 2)[1] * 4 >= 2 * side * side + (n + side) * (d + 2) * 4
    # fp32 gradients are their own sums.
    assert backward_plan(n, n, d, torch.float32)[1] * 4 <= 4 * side * side + side * side // 32 * 4 + 2 * n * 4


def test_without_rows_or_columns() -> None:
    assert kernels(forward_plan(0, 0, 8)) == []
    assert kernels(forward_plan(3, 0, 8)) == ["merge_statistics"]
    assert kernels(backward_plan(3, 0, 8)) == ["merge_rows", "finish"]
    assert kernels(backward_plan(0, 3, 8)) == ["finish"]


def test_what_kernels_cannot_count_is_refused() -> None:
    far = torch.zeros(16, dtype=torch.bfloat16).as_strided((1, 8), (2**30, 1))
    with pytest.raises(NotImplementedError, match="image"):
        backends.native.contrastive_forward_plan(far, far, SCALE, torch.empty(4, 1), torch.empty(4, 1), 0)  # type: ignore[union-attr]
