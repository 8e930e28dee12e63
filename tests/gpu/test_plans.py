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


#: Shared memory of a block, and multiprocessors.
A100, H100, RTX_4090 = (163 * 1024, 108), (227 * 1024, 132), (99 * 1024, 128)


def attention_plan(sq: int, sk: int, d: int, heads: int = 4, key_heads: int = 4, batch: int = 2, dtype: torch.dtype = torch.bfloat16, boundaries: list[int] | None = None, gpu: tuple[int, int] = H100) -> list[dict[str, Any]]:  # fmt: skip
    def one(h: int, s: int) -> torch.Tensor:
        if boundaries is not None:
            return torch.zeros(s, h, d, dtype=dtype)
        return torch.zeros(1, h, s, d, dtype=dtype).expand(batch, h, s, d)

    cu = None if boundaries is None else torch.tensor(boundaries, dtype=torch.int32)
    q, k = one(heads, sq), one(key_heads, sk)
    return backends.native.attention_forward_plan(  # type: ignore[no-any-return,union-attr]
        q, k, k, q, None, None, None, None, None, cu, cu, 0, -1, -1, None, 0.0, 0, *gpu
    )


def launch_numbers(found: dict[str, Any]) -> list[int]:
    """ForwardLaunch behind the problem: rows of a block, blocks of rows, heads together, splits."""
    numbers = torch.frombuffer(bytearray(found["parameters"]), dtype=torch.int32).tolist()
    return numbers[-8:-4]


@pytest.mark.parametrize(
    ("d", "kernel"),
    [(8, "64_padded"), (56, "64_padded"), (120, "128_padded"), (136, "256_padded"), (256, "256_padded")]
    + [(d, str(d)) for d in (64, 72, 80, 88, 96, 104, 112, 128)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d).removeprefix("torch."))
def test_attention_tile_by_head_dim(d: int, kernel: str, dtype: torch.dtype) -> None:
    (found,) = attention_plan(100, 100, d, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    assert found["image"] == f"attention/forward_{name}"
    assert found["kernel"] == f"attention_forward_{name}_{kernel}"
    assert found["block"] == (128, 1, 1)
    # Two blocks an SM of 164 KB (of which each takes 1 KB more) up to 112; one in 99 KB beyond.
    assert found["shared_bytes"] <= (81 if d <= 112 else 99) * 1024


@pytest.mark.parametrize(
    ("d", "kernel"), [(8, "64"), (64, "64"), (72, "128"), (128, "128"), (136, "256"), (256, "256")]
)
def test_attention_tile_in_fp32(d: int, kernel: str) -> None:
    (found,) = attention_plan(100, 100, d, dtype=torch.float32)
    assert found["kernel"] == f"attention_forward_float32_{kernel}_padded"
    assert found["shared_bytes"] <= 99 * 1024


def test_attention_blocks_share_the_rows_evenly() -> None:
    """257 rows are nine warps: three blocks of three, not two of four and one of one."""
    for s, blocks, rows in ((1, 1, 32), (50, 1, 64), (128, 1, 128), (197, 2, 128), (257, 3, 96), (577, 5, 128)):
        (found,) = attention_plan(s, s, 64)
        assert found["grid"] == (blocks * 4 * 2, 1, 1)
        assert launch_numbers(found)[0] == rows


def test_attention_keeps_short_keys_in_shared_memory() -> None:
    """Where two blocks a multiprocessor have room, and as many blocks of several tiles fill the GPU as evenly as more of one."""
    for s, d, gpu, resident in (
        (197, 64, A100, True),
        (257, 64, A100, True),
        (273, 64, A100, False),
        (257, 64, RTX_4090, False),
        (144, 64, RTX_4090, True),
        (197, 80, A100, True),
        (257, 80, A100, False),
        (257, 80, H100, True),
        (256, 72, A100, True),  # 81 KB, to the byte
        (257, 72, A100, False),
        (192, 88, A100, True),
        (257, 88, H100, True),
        (240, 104, H100, True),
        (241, 104, H100, False),
        (128, 64, A100, False),  # a block has all rows of a head
    ):
        (found,) = attention_plan(s, s, d, heads=16, key_heads=16, batch=64, gpu=gpu)
        assert ("resident" in found["kernel"]) == resident, (s, d, gpu)
        if resident:
            assert found["grid"] == (64 * 16, 1, 1)
            assert found["block"] == (128, 1, 1)
            assert 2 * (found["shared_bytes"] + 1024) <= gpu[0] + 1024
            assert launch_numbers(found)[:2] == [-(-s // 32) * 32, 1]


def test_attention_keeps_keys_only_where_the_gpu_stays_full() -> None:
    """Nine tiles of rows a head, four warps a block: three tiles one after the other in blocks that own a head, two in half a head, one in a third, which is what blocks
    that reload keys have."""
    for heads, row_blocks in ((64, 0), (72, 0), (108, 2), (216, 1), (217, 0), (1024, 1)):
        (found,) = attention_plan(257, 257, 64, heads=heads, key_heads=heads, batch=1, gpu=A100)
        assert found["kernel"] == f"attention_forward_{'resident_' if row_blocks else ''}bfloat16_64", heads
        assert found["grid"] == ((row_blocks or 3) * heads, 1, 1)


def test_attention_keeps_no_keys_under_masks() -> None:
    q = torch.zeros(1, 1, 257, 64, dtype=torch.bfloat16).expand(64, 16, 257, 64)
    for options in ((1, -1, -1, None, 0.0), (0, 5, -1, None, 0.0), (0, -1, 5, None, 0.0), (0, -1, -1, None, 30.0)):
        (found,) = backends.native.attention_forward_plan(q, q, q, q, *[None] * 7, *options, 0, *A100)  # type: ignore[union-attr]
        assert "resident" not in found["kernel"]


def test_attention_blocks_of_short_problems_have_no_idle_warps() -> None:
    for s, threads in ((1, 32), (50, 64), (77, 96), (128, 128), (197, 128)):
        assert attention_plan(s, s, 64)[0]["block"] == (threads, 1, 1)
    assert attention_plan(1, 2000, 64)[0]["block"] == (128, 1, 1)
    # A thread for every chunk of a row.
    assert attention_plan(1, 1, 256, dtype=torch.float32)[0]["block"] == (64, 1, 1)
    (windows,) = attention_plan(4096, 4096, 80, boundaries=list(range(0, 4097, 64)))
    assert windows["block"] == (64, 1, 1)


def test_attention_heads_of_a_group_share_blocks_where_queries_are_few() -> None:
    found = attention_plan(1, 300, 128, heads=32, key_heads=8)[0]
    assert found["grid"] == (8 * 2, 1, 1)
    assert launch_numbers(found) == [32, 1, 4, 1]
    (found,) = attention_plan(1024, 1024, 128, heads=32, key_heads=8)
    assert launch_numbers(found) == [128, 8, 1, 1]


@pytest.mark.parametrize(
    ("sq", "sk", "batch", "splits"),
    [(1, 6404, 4, 8), (64, 2113, 4, 8), (1, 51_248, 1, 32), (1, 729, 8, 3), (1, 500, 1, 2), (577, 577, 1, 1)],
)
def test_attention_splits_the_keys_where_queries_are_few(sq: int, sk: int, batch: int, splits: int) -> None:
    plans = attention_plan(sq, sk, 64, heads=8, key_heads=8, batch=batch)
    assert launch_numbers(plans[0])[3] == splits
    assert plans[0]["grid"] == (-(-sq // 128) * 8 * batch * splits, 1, 1)
    if splits == 1:
        assert len(plans) == 1
    else:
        assert plans[1]["kernel"] == "attention_combine_bfloat16"
        assert plans[1]["grid"] == (-(-8 * batch * sq // 4), 1, 1)


def test_attention_of_packed_sequences_has_room_for_any_lengths() -> None:
    (found,) = attention_plan(1000, 1000, 80, heads=3, key_heads=3, boundaries=[0, 64, 64, 700, 990])
    rows, blocks = launch_numbers(found)[:2]
    assert blocks == 1000 // rows + 5
    assert found["grid"] == (3 * blocks, 1, 1)


def test_attention_without_rows_launches_nothing() -> None:
    assert attention_plan(0, 5, 64) == []
    assert attention_plan(5, 5, 64, batch=0) == []


def test_attention_refuses_what_a_gpu_cannot_take() -> None:
    q = torch.zeros(1, 1, 1, 64, dtype=torch.bfloat16)
    many = q.expand(1, 1, 2**29 + 1, 64)
    with pytest.raises(NotImplementedError, match="split the batch"):
        backends.native.attention_forward_plan(many, q, q, many, None, None, None, None, None, None, None, 0, -1, -1, None, 0.0, 0, *H100)  # fmt: skip
    shifted = torch.zeros(65 * 64, dtype=torch.bfloat16)[1:].as_strided((1, 1, 5, 64), (0, 0, 65, 1))
    with pytest.raises(ValueError, match="16 bytes"):
        backends.native.attention_forward_plan(shifted, q, q, shifted, None, None, None, None, None, None, None, 0, -1, -1, None, 0.0, 0, *H100)  # fmt: skip


MOST_SHARED, LEAST_SHARED = 227 * 1024, 99 * 1024  # of a block on sm_90, and on sm_86, 89 and 120


def backward_plan(sq: int, sk: int, d: int, heads: int = 4, key_heads: int = 4, batch: int = 2, dtype: torch.dtype = torch.bfloat16, boundaries: list[int] | None = None, causal: int = 0, shared: int = MOST_SHARED) -> list[dict[str, Any]]:  # fmt: skip
    shape = (lambda h, s: (s, h, d)) if boundaries is not None else (lambda h, s: (batch, h, s, d))
    q, k = (torch.zeros(1, dtype=dtype).new_zeros(shape(h, s)) for h, s in ((heads, sq), (key_heads, sk)))
    lse = torch.zeros((heads, sq) if boundaries is not None else (batch, heads, sq))
    cu = None if boundaries is None else torch.tensor(boundaries, dtype=torch.int32)
    return backends.native.attention_backward_plan(  # type: ignore[no-any-return,union-attr]
        q, None, q, k, k, q, lse, q, k, k, None, None, None, None, cu, cu, causal, -1, -1, None, 0.0, 0, shared
    )


def names(plans: list[dict[str, Any]]) -> list[str]:
    return [plan["kernel"].removeprefix("attention_backward_").replace("_bfloat16", "") for plan in plans]


def test_backward_owns_all_keys_of_a_head_where_it_can() -> None:
    assert names(backward_plan(197, 128, 64)) == ["statistics", "resident128_64"]
    assert names(backward_plan(197, 197, 64)) == ["statistics", "resident256_64"]
    assert names(backward_plan(577, 256, 64)) == ["statistics", "resident256_64"]
    # One block a head, whatever the number of queries.
    assert backward_plan(577, 256, 64, heads=12, key_heads=6)[1]["grid"] == (2 * 6, 1, 1)
    both = ["statistics", "keys_64", "queries_64"]
    assert names(backward_plan(257, 257, 64)) == both
    assert names(backward_plan(197, 197, 64, shared=LEAST_SHARED)) == both
    assert names(backward_plan(197, 128, 64, shared=LEAST_SHARED)) == ["statistics", "resident128_64"]
    assert names(backward_plan(197, 197, 64, causal=1)) == ["statistics", "masked_keys_64", "masked_queries_64"]
    assert names(backward_plan(197, 197, 64, boundaries=[0, 100, 197])) == both


@pytest.mark.parametrize(
    ("d", "kernel"),
    [(8, 32), (32, 32), (40, 64), (56, 64), (120, 128), (136, 256), (256, 256)]
    + [(d, d) for d in (72, 80, 88, 96, 104, 112, 128)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda d: str(d).removeprefix("torch."))  # fmt: skip
def test_backward_tile_by_head_dim(d: int, kernel: int, dtype: torch.dtype) -> None:
    wide = dtype == torch.float32
    if wide:
        kernel = 64 if d <= 64 else 128 if d <= 128 else 256
    plain = "" if kernel <= 128 and not wide else "masked_"
    keys = ["keys"] if kernel <= (64 if wide else 128) else ["key", "value"]
    found = backward_plan(300, 300, d, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    assert [plan["kernel"] for plan in found] == [
        f"attention_backward_statistics_{name}",
        *(f"attention_backward_{plain}{what}_{name}_{kernel}" for what in (*keys, "queries")),
    ]
    for plan in found:
        assert plan["image"] == f"attention/backward_{name}"
        assert plan["shared_bytes"] <= LEAST_SHARED
        if not wide and kernel <= 112:  # two blocks an SM of 164 KB, of which each takes 1 KB more
            assert plan["shared_bytes"] <= 81 * 1024


def test_backward_blocks_share_the_rows_evenly() -> None:
    """257 keys are nine warps of 32: three blocks of three."""
    for s, blocks, rows in ((50, 1, 64), (257, 3, 96), (577, 5, 128)):
        for plan in backward_plan(s, s, 72)[1:]:
            assert plan["grid"] == (blocks * 4 * 2, 1, 1)
            numbers = torch.frombuffer(bytearray(plan["parameters"]), dtype=torch.int32).tolist()
            assert numbers[-2:] == [rows, blocks]


def test_backward_of_packed_sequences_has_room_for_any_lengths() -> None:
    for plan in backward_plan(1000, 900, 80, heads=6, key_heads=3, boundaries=[0, 64, 64, 700, 890])[1:]:
        keys = "keys" in plan["kernel"]
        rows, blocks = torch.frombuffer(bytearray(plan["parameters"]), dtype=torch.int32).tolist()[-2:]
        assert blocks == (900 if keys else 1000) // rows + 5
        assert plan["grid"] == ((3 if keys else 6) * blocks, 1, 1)


def test_backward_without_rows() -> None:
    """Gradients of what meets nothing are still written."""
    assert names(backward_plan(0, 5, 64)) == ["keys_64"]
    assert names(backward_plan(5, 0, 64)) == ["statistics", "queries_64"]
    assert backward_plan(5, 5, 64, batch=0) == []
