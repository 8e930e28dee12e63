"""Every case of the grid, on every backend, in every dtype, against float64 by the accuracy rule."""

from __future__ import annotations

import pytest
import torch

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
