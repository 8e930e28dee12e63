"""What only a GPU can show: torch's streams, graphs and allocator around the kernels. The grid of cases runs on a GPU in tests/ops/test_accuracy.py."""

from __future__ import annotations

import pytest
import torch

import vlmkernels as vk
from vlmkernels import backends
from vlmkernels.reference import merge as reference

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
