"""Every operator test runs on the reference and on the CPU kernels of every instruction set of the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch

from vlmkernels import backends

ISAS = backends.native.available_isas() if backends.native is not None else []
BACKENDS = ["reference", *(f"cpu-{isa}" for isa in ISAS)]


if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; tests about threads set their own number
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on one backend; the kernels on one instruction set."""
    with on_backend(request.param):
        yield request.param


def on_backend(name: str) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def switched() -> Iterator[None]:
        kind, _, isa = name.partition("-")
        before = backends.native.active_isa() if backends.native is not None else ""
        if isa:
            backends.native.set_active_isa(isa)
        try:
            with backends.use_backend(kind):
                yield
        finally:
            if isa:
                backends.native.set_active_isa(before)

    return switched()


@pytest.fixture
def native() -> object:
    if backends.native is None:
        pytest.skip(backends.native_error)
    return backends.native
