"""Every case of the grid, on every backend, in every dtype, against float64 by the accuracy rule."""

from __future__ import annotations

import pytest
import torch

from vlmkernels import backends, images
from vlmkernels.cli.info import OPERATIONS
from vlmkernels.verify import Case, cases, check_accuracy, check_repeatable

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_accuracy(case: Case, dtype: torch.dtype, backend: str) -> None:
    failed = [str(finding) for finding in check_accuracy(case, dtype) if not finding.passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", [c for c in cases() if not c.name.startswith("head dim")], ids=str)
def test_the_same_bits_every_time(case: Case, dtype: torch.dtype, backend: str) -> None:
    if backend == "reference":
        pytest.skip("the reference is as repeatable as PyTorch")
    assert check_repeatable(case, dtype) == []


#: Cases of operations that have CUDA kernels.
CUDA_CASES = [case for case in cases() if OPERATIONS[case.operation] in images.OPERATIONS]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CUDA_CASES, ids=str)
def test_accuracy_on_the_emulator(case: Case, dtype: torch.dtype) -> None:
    """Warps in turn, and interleaved at random: the same bits, and within the rule."""
    require("emulator", case, dtype)
    with backends.use_backend("emulator"):
        failed = [str(finding) for finding in check_accuracy(case, dtype) if not finding.passed]
        assert not failed, "\n".join(failed)
        with backends.emulation(schedule="random", seed=1):
            assert check_repeatable(case, dtype) == []


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CUDA_CASES, ids=str)
def test_accuracy_on_a_gpu(case: Case, dtype: torch.dtype) -> None:
    require("cuda", case, dtype)
    with backends.use_backend("cuda"):
        failed = [str(finding) for finding in check_accuracy(case, dtype, device="cuda") if not finding.passed]
        assert not failed, "\n".join(failed)
        assert check_repeatable(case, dtype, device="cuda") == []


def require(backend: str, case: Case, dtype: torch.dtype) -> None:
    if backend == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU")
    device = "cuda" if backend == "cuda" else "cpu"
    if against := backends.reasons(backend, OPERATIONS[case.operation], device, dtype):
        pytest.skip("; ".join(against))
