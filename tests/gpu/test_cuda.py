"""What only a GPU can show: torch's streams, graphs and allocator around the kernels. The grid of cases runs on a GPU in tests/ops/test_accuracy.py."""

from __future__ import annotations

import pytest
import torch

import vlmkernels as vk
from vlmkernels import backends
from vlmkernels.reference import merge as reference
from vlmkernels.verify.grid import dense_attention
from vlmkernels.verify.rule import compare

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no GPU"),
]


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if against := backends.reasons("cuda", "merge_attention", "cuda", torch.bfloat16):
        pytest.skip("; ".join(against))


def parts(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape, device="cuda").bfloat16(), torch.randn(shape[:-1], device="cuda")


def test_cuda_tensors_get_the_cuda_backend() -> None:
    assert backends.choose("merge_attention", "cuda", torch.bfloat16) == "cuda"


def test_on_another_stream() -> None:
    outputs, lses = parts(3, 4096, 64)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        out, _ = vk.merge_attention(outputs, lses)
    stream.synchronize()
    torch.testing.assert_close(out, reference.merge_attention(outputs, lses)[0])


def test_graph_capture() -> None:
    """Captured and replayed on new contents; the second graph contains the first launch of a kernel."""
    for width in (64, 24):
        outputs, lses = parts(3, 100, width)
        graph = torch.cuda.CUDAGraph()
        if width == 64:
            vk.merge_attention(outputs, lses)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            out, _ = vk.merge_attention(outputs, lses)
        outputs.normal_()
        graph.replay()
        torch.testing.assert_close(out, reference.merge_attention(outputs, lses)[0])


def test_gradients() -> None:
    outputs, lses = (t.requires_grad_() for t in parts(4, 2, 3, 37, 72))
    out, lse = vk.merge_attention(outputs, lses)
    expected, expected_lse = reference.merge_attention(outputs, lses)
    weights = torch.randn_like(out), torch.randn_like(lse)
    found = torch.autograd.grad((out, lse), (outputs, lses), weights)
    wanted = torch.autograd.grad((expected, expected_lse), (outputs, lses), weights)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


def needs_attention(dtype: torch.dtype = torch.bfloat16) -> None:
    if against := backends.reasons("cuda", "attention", "cuda", dtype):
        pytest.skip("; ".join(against))


def qkv(heads: int, sq: int, sk: int, d: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    return [torch.randn(2, heads, s, d, device="cuda").to(dtype) for s in (sq, sk, sk)]


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda d: str(d).removeprefix("torch.")
)
@pytest.mark.parametrize("d", [8, 40, 64, 72, 80, 88, 96, 104, 112, 120, 128, 200, 256])
@pytest.mark.parametrize("kind", ["plain", "peaked", "growing"])
def test_attention_of_long_sequences(d: int, dtype: torch.dtype, kind: str) -> None:
    needs_attention(dtype)
    for sq, sk in ((197, 197), (577, 577), (1601, 1601), (77, 4097)):
        q, k, v = qkv(3, sq, sk, d)
        if kind != "plain":
            q, k = 3 * q, 3 * k
        if kind == "growing":
            k *= torch.linspace(0.05, 1, sk, device="cuda")[:, None]
        q, k, v = (t.to(dtype) for t in (q, k, v))
        found = vk.attention(q, k, v, return_lse=True)
        assert torch.equal(vk.attention(q, k, v), found[0]), "the same bits, with and without the logsumexp"
        everything = torch.ones(sq, sk, dtype=torch.bool, device="cuda")
        peer = dense_attention(q, k, v, everything, None, None, None)
        with backends.use_backend("reference"):
            exact = vk.attention(q.double(), k.double(), v.double(), return_lse=True)
        for name, f, p, e in zip(("out", "lse"), found, peer, exact, strict=True):
            finding = compare(name, f, p, e)
            assert finding.passed, f"{sq} x {sk}: {finding}"


def test_attention_never_waits_for_the_gpu() -> None:
    needs_attention()
    q, k, v = (t[0].transpose(0, 1) for t in qkv(4, 300, 300, 72))
    boundaries = torch.tensor([0, 100, 100, 290], dtype=torch.int32, device="cuda")
    expected = vk.attention_varlen(q, k, v, boundaries, boundaries)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = vk.attention_varlen(q, k, v, boundaries, boundaries)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out, expected)


def test_attention_stays_within_its_tensors_whatever_the_boundaries() -> None:
    needs_attention()
    inputs = [t[0].transpose(0, 1) for t in qkv(4, 300, 300, 72)]
    before = [t.clone() for t in inputs]
    for boundaries in ([0, -5, 1000], [7, 300, 20], [2**31 - 1, -(2**31), 0]):
        wrong = torch.tensor(boundaries, dtype=torch.int32, device="cuda")
        vk.attention_varlen(*inputs, wrong, wrong)
    torch.cuda.synchronize()  # where a fault would show
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_attention_in_a_graph() -> None:
    needs_attention()
    q, k, v = qkv(4, 257, 257, 80)
    graph = torch.cuda.CUDAGraph()
    vk.attention(q, k, v)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        out = vk.attention(q, k, v)
    q.normal_()
    graph.replay()
    assert torch.equal(out, vk.attention(q, k, v))


def test_attention_gives_the_same_bits_a_thousand_times() -> None:
    needs_attention()
    q, k, v = qkv(16, 729, 729, 72)
    expected = vk.attention(q, k, v)
    assert all(torch.equal(vk.attention(q, k, v), expected) for _ in range(1000))


def gradients(inputs: list[torch.Tensor], attend: object = None, **options: object) -> tuple[torch.Tensor, ...]:
    """Of output and logsumexp, weighted by fixed numbers."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    out, lse = attend(*inputs) if callable(attend) else vk.attention(*inputs, return_lse=True, **options)  # type: ignore[arg-type]
    g = torch.Generator("cuda").manual_seed(1)
    total = (out.double() * torch.randn(out.shape, generator=g, device="cuda")).sum()
    return torch.autograd.grad(
        total + (lse.double() * torch.randn(lse.shape, generator=g, device="cuda")).sum(), inputs
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda d: str(d).removeprefix("torch."))  # fmt: skip
@pytest.mark.parametrize("d", [8, 40, 64, 72, 80, 88, 96, 104, 112, 120, 128, 200, 256])
def test_attention_gradients_of_long_sequences(d: int, dtype: torch.dtype) -> None:
    needs_attention(dtype)
    for sq, sk in ((50, 50), (197, 197), (257, 257), (577, 577), (1601, 1601), (77, 2049)):
        inputs = qkv(3, sq, sk, d, dtype)
        found = gradients(inputs)
        everything = torch.ones(sq, sk, dtype=torch.bool, device="cuda")
        peer = gradients(inputs, lambda q, k, v, e=everything: dense_attention(q, k, v, e, None, None, None))
        with backends.use_backend("reference"):
            exact = gradients([t.double() for t in inputs])
        for name, f, p, e in zip(("query", "key", "value"), found, peer, exact, strict=True):
            finding = compare(f"grad {name}", f, p, e, gradient=True)
            assert finding.passed, f"{sq} x {sk}: {finding}"


def test_attention_gradients_never_wait_for_the_gpu() -> None:
    needs_attention()
    q, k, v = (t[0].transpose(0, 1).detach().requires_grad_() for t in qkv(4, 300, 300, 72))
    boundaries = torch.tensor([0, 100, 100, 290], dtype=torch.int32, device="cuda")
    expected = torch.autograd.grad(vk.attention_varlen(q, k, v, boundaries, boundaries).sum(), (q, k, v))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = torch.autograd.grad(vk.attention_varlen(q, k, v, boundaries, boundaries).sum(), (q, k, v))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_attention_gradients_stay_within_their_tensors_whatever_the_boundaries() -> None:
    needs_attention()
    for boundaries in ([0, -5, 1000], [7, 300, 20], [2**31 - 1, -(2**31), 0]):
        inputs = [t[0].transpose(0, 1).detach().requires_grad_() for t in qkv(4, 300, 300, 72)]
        before = [t.detach().clone() for t in inputs]
        wrong = torch.tensor(boundaries, dtype=torch.int32, device="cuda")
        vk.attention_varlen(*inputs, wrong, wrong).sum().backward()
        torch.cuda.synchronize()  # where a fault would show
        assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_attention_gradients_of_many_sequences() -> None:
    """More than 65,535 of them; with one key each, the output's gradient is the value's."""
    needs_attention()
    count = 66_000
    boundaries = torch.arange(count + 1, dtype=torch.int32, device="cuda")
    q, k, v, weight = (torch.randn(count, 1, 8, device="cuda").bfloat16() for _ in range(4))
    vk.attention_varlen(q, k, v.requires_grad_(), boundaries, boundaries).backward(weight)
    assert torch.equal(v.grad, weight)


def test_attention_gradients_in_a_graph() -> None:
    needs_attention()
    inputs = [t.requires_grad_() for t in qkv(4, 197, 197, 64)]
    weight = torch.randn_like(inputs[0])
    torch.autograd.grad(vk.attention(*inputs), inputs, weight)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torch.autograd.grad(vk.attention(*inputs), inputs, weight)
    weight.normal_()
    graph.replay()
    expected = torch.autograd.grad(vk.attention(*inputs), inputs, weight)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("s", "d", "causal"), [(197, 64, None), (729, 72, None), (577, 128, "top_left")])
def test_attention_gradients_are_the_same_bits_a_thousand_times(s: int, d: int, causal: str | None) -> None:
    needs_attention()
    inputs = [t.requires_grad_() for t in qkv(8, s, s, d)]
    weight = torch.randn_like(inputs[0])
    out = vk.attention(*inputs, causal=causal)  # type: ignore[arg-type]
    expected = torch.autograd.grad(out, inputs, weight, retain_graph=True)
    for _ in range(1000):
        found = torch.autograd.grad(out, inputs, weight, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
