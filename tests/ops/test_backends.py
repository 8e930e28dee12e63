"""Which backend serves a call, and what it says when the best one cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import vlmkernels as vk
from vlmkernels import backends


def test_reasons_are_words() -> None:
    assert backends.reasons("reference", "attention", "cpu", torch.float64) == []
    found = backends.reasons("cpu", "attention", "meta", torch.float64)
    assert any("meta" in reason for reason in found)
    assert any("float64" in reason for reason in found)


def test_fallback_warns_once_and_strict_raises() -> None:
    code = (
        "import warnings, torch, vlmkernels as vk\n"
        "q = torch.randn(1, 1, 2, 8, dtype=torch.float64)\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    vk.attention(q, q, q); vk.attention(q, q, q)\n"
        "print(len(seen), seen[0].message if seen else '')\n"
    )

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})

    out = run()
    assert out.stdout.startswith("1 attention runs on the slow reference backend")
    out = run(VLMKERNELS_STRICT="1")
    assert "VLMKERNELS_STRICT" in out.stderr
    out = run(VLMKERNELS_BACKEND="cuda9")
    assert "VLMKERNELS_BACKEND is 'cuda9'" in out.stderr


def test_requested_backend_that_cannot_is_an_error(native) -> None:
    q = torch.randn(1, 1, 2, 8, dtype=torch.float64)
    with backends.use_backend("cpu"), pytest.raises(RuntimeError, match="float64"):
        vk.attention(q, q, q)
    with pytest.raises(ValueError, match="gpu"), backends.use_backend("gpu"):
        pass


def test_backends_with_cuda_kernels_refuse_what_has_none(native) -> None:
    for name in ("emulator", "cuda"):
        with backends.use_backend(name), pytest.raises(RuntimeError, match="no CUDA kernel for convolution"):
            backends.choose("convolution", "cpu", torch.float32)
    assert "meta" in backends.reasons("emulator", "merge_attention", "meta", torch.float32)[0]


def test_the_emulator_is_never_chosen_by_itself() -> None:
    assert backends.choose("merge_attention", "cpu", torch.float32) in ("cpu", "reference")


@pytest.mark.parametrize("causal", [False, True])
def test_scaled_dot_product_attention_is_torchs(backend: str, causal: bool) -> None:
    q, k, v = (torch.randn(2, 4, 9, 16) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.3)
    torch.testing.assert_close(vk.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.3), expected)
    mask = torch.randn(9, 9)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(vk.scaled_dot_product_attention(q, k, v, mask), expected)
