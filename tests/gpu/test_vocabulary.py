"""Every word of the device vocabulary (csrc/gpu/*.cuh), compiled by nvcc and run by the emulator, against torch."""

from __future__ import annotations

import pytest
import torch
from cuda_toolkit import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

#: Compiled for the oldest GPUs, and for those with instructions of their own.
ARCHITECTURES = (80, 90)


@pytest.fixture(params=ARCHITECTURES, ids=lambda a: f"compute_{a}")
def run(request: pytest.FixtureRequest, kernel_module):
    """Launches a kernel on every warp order that may differ, and expects a report without findings."""
    module = kernel_module("vocabulary", request.param)

    def launch(kernel: str, *args: object, grid: int = 1, block: int = 32, shared_bytes: int = 0) -> object:
        report = module.launch(kernel, (grid, 1, 1), (block, 1, 1), list(args), shared_bytes=shared_bytes)
        assert not report.findings, report.findings
        return report

    return launch


def bits16(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int16)


FLOATS = {"f16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("depth", [16, 8])
@pytest.mark.parametrize("name", FLOATS)
def test_mma_16_bit(run, name: str, depth: int) -> None:
    a, b = (torch.randn(s).to(FLOATS[name]) for s in ((16, depth), (depth, 8)))
    d = torch.zeros(16, 8)
    run(f"mma_{name}_k{depth}", a, b, d)
    torch.testing.assert_close(d, a.float() @ b.float(), rtol=1e-5, atol=1e-5)


def tf32(values: torch.Tensor) -> torch.Tensor:
    """Rounded to 10 bits of mantissa, half away from zero."""
    return ((values.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("depth", [8, 4])
def test_mma_tf32(run, depth: int) -> None:
    a, b = tf32(torch.randn(16, depth)), tf32(torch.randn(depth, 8))
    d = torch.zeros(16, 8)
    run(f"mma_tf32_k{depth}", a, b, d)
    torch.testing.assert_close(d, a @ b, rtol=1e-5, atol=1e-5)


def test_products_of_fp32(run) -> None:
    """The error is that of sums in fp32, not of factors in tf32."""
    a, b = torch.randn(16, 24), torch.randn(16, 24)
    d = torch.zeros(16, 16)
    run("split_tf32", a, b, d)
    torch.testing.assert_close(d.double(), a.double() @ b.double().mT, rtol=0, atol=4e-6)


def test_words_through_shared_memory(run) -> None:
    words, out = torch.randint(-(2**31), 2**31, (32, 4)).int(), torch.zeros(32, 4, dtype=torch.int32)
    run("shared_words", words, out)
    assert torch.equal(out, words)


def test_mma_int8(run) -> None:
    a, b = (torch.randint(-128, 128, s, dtype=torch.int8) for s in ((16, 32), (32, 8)))
    d = torch.zeros(16, 8, dtype=torch.int32)
    run("mma_s8_k32", a, b, d)
    assert torch.equal(d, a.int() @ b.int())


@pytest.mark.parametrize(
    ("kernel", "name", "stored", "row_bytes"),
    [
        ("attention_f16_pitch", "f16", 24, 48),
        ("attention_bf16_pitch", "bf16", 24, 48),
        ("attention_bf16_pitch_even", "bf16", 32, 80),
        ("attention_bf16_swizzle_32", "bf16", 32, 64),
        ("attention_bf16_swizzle_128", "bf16", 128, 256),
        ("attention_f16_views", "f16", 24, 2 * 48),  # two stages
        ("attention_bf16_views", "bf16", 24, 2 * 48),
    ],
)
def test_operands_out_of_tiles(run, kernel: str, name: str, stored: int, row_bytes: int) -> None:
    """Both products of attention over 24 of the depth, out of tiles with either layout, without a bank conflict in ldmatrix."""
    q, k, v = (torch.randn(rows, stored).to(FLOATS[name]) for rows in (16, 32, 32))
    s, o = torch.zeros(16, 32), torch.zeros(16, 24)
    report = run(kernel, q, k, v, s, o, shared_bytes=80 * row_bytes)
    q, k, v = (t[:, :24] for t in (q, k, v))
    expected = q.float() @ k.float().mT
    torch.testing.assert_close(s, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(o, s.to(FLOATS[name]).float() @ v.float(), rtol=1e-4, atol=1e-4)
    traffic = report.counters["shared_load"]
    assert traffic["wavefronts"] == traffic["ideal_wavefronts"]


@pytest.mark.parametrize(
    ("name", "columns", "used"),
    [("f16", 24, 24), ("bf16", 24, 24), ("bf16", 32, 32), ("bf16", 32, 16), ("f32", 40, 40), ("f32", 40, 24)],
)
def test_products_of_tiles(run, name: str, columns: int, used: int) -> None:
    """Of all columns, an odd number of eights among them, and of those that are used. fp32 keeps the accuracy of fp32."""
    dtype = FLOATS.get(name, torch.float32)
    q, k, v = (torch.randn(32, columns).to(dtype) for _ in range(3))
    s, o = torch.zeros(32, 32), torch.zeros(32, columns)
    report = run(f"tile_products_{name}_{columns}", q, k, v, s, o, used, shared_bytes=96 * 176)
    expected = q[:, :used].double() @ k[:, :used].double().mT
    torch.testing.assert_close(s.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(o[:, :used].double(), s.to(dtype).double() @ v[:, :used].double(), rtol=0, atol=1e-4)
    traffic = report.counters["shared_load"]
    assert traffic["wavefronts"] == traffic["ideal_wavefronts"]


def test_left_operand_out_of_its_transpose(run) -> None:
    a, b, d = torch.randn(16, 16).bfloat16(), torch.randn(16, 16).bfloat16(), torch.zeros(16, 8)
    run("left_transposed", a, b, d)
    torch.testing.assert_close(d, a.float().mT @ b[:8].float().mT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["bf16", "f32"])
def test_left_operands_out_of_both_kinds_of_tiles(run, name: str) -> None:
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    a, b = torch.randn(32, 32).to(dtype), torch.randn(32, 40).to(dtype)
    product, transposed = torch.zeros(32, 40), torch.zeros(32, 40)
    run(f"left_rows_{name}", a, b, product, transposed, shared_bytes=16384)
    depths = torch.arange(32)
    if name == "f32":  # row 2t of the right tile is depth t, row 2t + 1 depth t + 4
        depths = (depths.view(4, 2, 4).mT).flatten()
    torch.testing.assert_close(product, a[:, depths].float() @ b.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(transposed, a.float().mT @ b.float(), rtol=1e-5, atol=1e-5)


PACKED = [("u8", n) for n in (1, 2, 4, 8, 16)] + [("bf16", n) for n in (1, 2, 8)] + [("f16", 4), ("f32", 1), ("f32", 2), ("f32", 4)]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), PACKED)
def test_packed_numbers(run, name: str, count: int) -> None:
    dtype = {"u8": torch.uint8, "bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[name]
    numbers = torch.randint(0, 256, (32 * count,), dtype=torch.uint8) if name == "u8" else torch.randn(32 * count).to(dtype)  # fmt: skip
    copy, wide, rounded = numbers.clone().zero_(), torch.zeros(32 * count), torch.zeros(32 * count, dtype=torch.bfloat16)  # fmt: skip
    run(f"packed_{name}_{count}", numbers, copy, wide, rounded)
    assert torch.equal(copy, numbers)
    assert torch.equal(wide, numbers.float())
    assert torch.equal(rounded, numbers.bfloat16())


def test_divisions(run) -> None:
    divisors = torch.cat([torch.arange(1, 300), torch.tensor([1000, 4097, 32768])]).int()
    largest = (1 << 30) // divisors - 1
    numbers = torch.stack([largest, largest // divisors * divisors, largest // divisors * divisors - 1, divisors, 0 * divisors]).clamp(min=0)  # fmt: skip
    numbers = torch.minimum(numbers, largest).int()
    quotients = torch.zeros_like(numbers)
    for row, found in zip(numbers, quotients, strict=True):
        run("divisions", row, divisors, found, len(divisors), block=512)
    assert torch.equal(quotients, numbers // divisors)


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_and_stmatrix(run, count: int, transposed: bool) -> None:
    block = torch.randperm(256).to(torch.int16).view(4, 8, 8)
    out, back = torch.zeros(32, count, dtype=torch.int32), torch.zeros(256, dtype=torch.int16)
    run(f"matrices_{count}" + ("_transposed" if transposed else ""), block, out, back)
    lane = torch.arange(32)
    seen = block.mT.contiguous() if transposed else block
    expected = torch.stack(
        [seen[m, lane[:, None] // 4, lane[:, None] % 4 * 2 + torch.arange(2)] for m in range(count)], 1
    )
    assert torch.equal(out.view(torch.int16).view(32, count, 2), expected)
    if count > 1:
        assert torch.equal(back.view(4, 8, 8)[:count], block[:count])
        assert (back.view(4, 8, 8)[count:] == -1).all()


def test_stmatrix_is_used_where_it_exists(kernel_ptx) -> None:
    """Code for sm_90 stores matrices by the instruction, older code without it; the test above ran both."""
    assert "stmatrix.sync" in kernel_ptx("vocabulary", 90)
    assert "stmatrix.sync" not in kernel_ptx("vocabulary", 80)


@pytest.mark.parametrize("rows", [0, 1, 8, 23, 64])
def test_copies_through_a_ring(run, rows: int) -> None:
    """Copies two tiles ahead; a missing wait or barrier would be reported, and rows past the end are zeros."""
    values, sums = torch.randn(max(rows, 1), 32), torch.full((32,), torch.nan)
    run("pipeline", values, sums, rows, block=64)
    torch.testing.assert_close(sums, values[:rows].sum(0), rtol=1e-5, atol=1e-5)


def test_small_copies(run) -> None:
    source = torch.randint(1, 256, (32, 24), dtype=torch.uint8)
    found = torch.zeros_like(source)
    run("small_copies", source, found)
    expected = source.clone()
    expected[:, 13:16] = 0
    expected[:, 21:] = 0
    assert torch.equal(found, expected)


def test_reductions(run) -> None:
    values, out = torch.randn(32), torch.zeros(5, 32)
    run("reductions", values, out)
    for row, (width, reduce) in enumerate(
        [(32, torch.sum), (8, torch.sum), (4, torch.sum), (32, torch.amax), (16, torch.amax)]
    ):
        groups = out[row].view(-1, width)
        assert (groups == groups[:, :1]).all(), "every lane of a group has the same bits"
        torch.testing.assert_close(groups[:, 0], reduce(values.view(-1, width), 1), rtol=1e-6, atol=1e-6)


def test_powers_of_two(run) -> None:
    x = torch.cat([torch.linspace(-126, 127, 4001), torch.tensor([-torch.inf, torch.inf, 0.0, 1.0])])
    power, logarithm = torch.zeros_like(x), torch.zeros_like(x)
    run("powers", x, power, logarithm, x.numel(), grid=(x.numel() + 127) // 128, block=128)
    torch.testing.assert_close(power, torch.exp2(x.double()).float(), rtol=2**-21, atol=0)
    positive = x > 0
    torch.testing.assert_close(logarithm[positive], torch.log2(x[positive].double()).float(), rtol=2**-21, atol=2**-21)
    assert logarithm[x == 0] == -torch.inf
    assert logarithm[x < 0].isnan().all()


@pytest.mark.parametrize("name", FLOATS)
def test_conversions(run, name: str) -> None:
    """To nearest even, with infinities, overflow, subnormal numbers and NaN; packed pairs have the first number in the low half."""
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 65504.0, 65520.0, 1e38, 6e-8, 2.9e-8, 1e-40])
    x = torch.cat([torch.randn(2000), torch.randn(1000) * 1e-5, special])
    # Halfway between two neighbours, where rounding goes to the even one.
    x = torch.cat([x, (torch.arange(0x3C00, 0x3C40, dtype=torch.int16).view(torch.float16).float() + 2.0**-11)])
    dtype = FLOATS[name]
    single, pair, wide = (
        torch.zeros_like(x, dtype=dtype),
        torch.zeros(x.numel(), dtype=torch.int32),
        torch.zeros(x.numel(), 3),
    )
    run(f"convert_{name}", x, single, pair, wide, x.numel(), grid=(x.numel() + 127) // 128, block=128)

    def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
        return bool(((found == expected) | (found.isnan() & expected.isnan())).all())

    assert same(single, x.to(dtype))
    halves = pair.view(torch.int16).view(dtype).view(-1, 2)
    assert same(halves[:, 0], x.to(dtype))
    assert same(halves[:, 1], (-x).to(dtype))
    assert same(wide, torch.stack([x.to(dtype), (-x).to(dtype), x.to(dtype)], 1).float())


def test_conversion_to_tf32(run) -> None:
    x = torch.randn(1000)
    out = torch.zeros(1000, dtype=torch.int32)
    run("convert_tf32", x, out, 1000, grid=8, block=128)
    # Tensor cores ignore the low 13 bits, so they do not matter here either.
    assert torch.equal((out & ~0x1FFF).view(torch.float32), tf32(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_vector_accesses(run, dtype: torch.dtype) -> None:
    name = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    width = 16 // dtype.itemsize
    x = torch.randn(32 * width).to(dtype)
    wide, narrow = torch.zeros_like(x), torch.zeros(32, dtype=dtype)
    run(f"vectors_{name}", x, wide, narrow)
    assert torch.equal(wide, 2 * x)
    assert torch.equal(narrow, 2 * x[:32])


def test_reductions_of_lanes_apart(run) -> None:
    values, out = torch.randn(32), torch.zeros(3, 32)
    run("reductions_apart", values, out)
    for row, (apart, reduce) in enumerate([(4, torch.sum), (8, torch.sum), (4, torch.amax)]):
        groups = out[row].view(-1, apart)
        assert (groups == groups[:1]).all(), "every lane of a group has the same bits"
        torch.testing.assert_close(groups[0], reduce(values.view(-1, apart), 0), rtol=1e-6, atol=1e-6)


def test_reciprocals_and_logarithms_near_1(run) -> None:
    x = torch.cat([torch.linspace(0, 1, 4001), torch.logspace(-37, 0, 1000)])
    inverse, log1p = torch.zeros_like(x), torch.zeros_like(x)
    run("reciprocals", x, inverse, log1p, x.numel(), grid=(x.numel() + 127) // 128, block=128)
    torch.testing.assert_close(inverse[1:], 1 / x[1:], rtol=2**-22, atol=0)
    torch.testing.assert_close(log1p, torch.log1p(x.double()).float(), rtol=2**-22, atol=0)


def test_products_of_fp32_word_by_word(run) -> None:
    """Without bank conflicts, and nearly as exact as fp32."""
    a, b, d = torch.randn(32, 16), torch.randn(32, 16), torch.zeros(16, 16)
    run("split_words", a, b, d)
    exact = a.double().mT @ b.double()
    assert (d - exact).abs().max() < 2**-20 * (a.abs().mT @ b.abs()).max()


def test_fp32_that_is_not_a_number_stays_one(run) -> None:
    a, b, d = torch.randn(32, 16), torch.randn(32, 16), torch.zeros(16, 16)
    for bits in (0x7FC00000, 0x7FFFFFFF, -1, -(1 << 22)):
        a[5, 3] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
        run("split_words", a, b, d)
        assert d[3].isnan().all()
        assert not d[:3].isnan().any()


@pytest.mark.parametrize("access", [16, 4, 2])
@pytest.mark.parametrize(("row", "byte"), [(0, 0), (3, 16), (70, 96)])
def test_windows(run, access: int, row: int, byte: int) -> None:
    """Of 90 rows of 55 elements; windows reach past both ends."""
    stride = {16: 64, 4: 58, 2: 57}[access]
    memory = torch.full((90, stride), -7, dtype=torch.int16)
    memory[:, :55] = torch.arange(90 * 55, dtype=torch.int16).view(90, 55)
    out = torch.zeros(48, 32, dtype=torch.int16)
    run("windows", memory, 90, 110, 2 * stride, access, row, byte, 0, out, shared_bytes=2 * 16 * 80)
    padded = torch.zeros(200, 200, dtype=torch.int16)
    padded[:90, :55] = memory[:, :55]
    expected = padded[row : row + 48, byte // 2 : byte // 2 + 32]
    assert torch.equal(out, expected)
    if access == 16 and row + 48 <= 90 and byte + 64 <= 110:
        run("windows", memory, 90, 110, 2 * stride, access, row, byte, 1, out, shared_bytes=2 * 16 * 80)
        assert torch.equal(out, expected)
