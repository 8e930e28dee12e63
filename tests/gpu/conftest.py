"""Fixtures for what runs device code without a GPU: the emulator, and a stand-in for the driver's library on top of it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cuda_toolkit as toolkit
import pytest

from vlmkernels import backends, images

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_size_t,
)
ILLEGAL_ADDRESS = 700


class StandIn:
    """tests/gpu/libcuda/stand_in.cpp: the driver's functions on CPU memory. Its behaviour is set here, its launches run on the emulator."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.standin_last_stream.restype = ctypes.c_void_p
        self.launched: list[str] = []
        self._modules: dict[str, object] = {}
        self._callback = _CALLBACK(self._launch)

    def reset(self) -> None:
        self.launched.clear()
        self.library.standin_reset(str(images.FOLDER).encode(), self._callback)

    def fail(self, function: str, code: int, times: int = 1) -> None:
        """Makes the next `times` calls of a driver function return `code`; -1: all."""
        self.library.standin_fail(function.encode(), code, times)

    def set(self, what: str, value: int) -> None:
        self.library.standin_set(what.encode(), value)

    def calls(self, function: str) -> int:
        return int(self.library.standin_calls(function.encode()))

    def _launch(self, ptx, kernel, grid, block, shared_bytes, parameters, parameter_bytes) -> int:
        from vlmkernels import emulator

        name = kernel.decode()
        self.launched.append(name)
        module = self._modules.get(ptx) or self._modules.setdefault(ptx, emulator.load(Path(ptx.decode())))
        # Memory of the driver is not bounded by tensors: addresses are used as they are.
        report = module.launch(
            name, tuple(grid[:3]), tuple(block[:3]), [ctypes.string_at(parameters, parameter_bytes)],
            shared_bytes=shared_bytes, checks=False, counters=False,
        )  # fmt: skip
        return ILLEGAL_ADDRESS if report.findings else 0


def _real_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def _standin_library(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    if backends.native is None:
        pytest.skip(backends.native_error)
    if why := images.missing("merge_attention") or toolkit.missing():
        pytest.skip(why)
    if _real_driver():
        pytest.skip("this process may already use the real driver; the stand-in is for machines without one")
    path = tmp_path_factory.mktemp("standin") / "libcuda.so.1"
    folders = (toolkit.ROOT / "csrc", toolkit.include_folder())
    source = Path(__file__).parent / "libcuda" / "stand_in.cpp"
    built = toolkit.run(
        "g++", "-std=c++17", "-O1", "-fPIC", "-shared", *(f"-I{f}" for f in folders), source, "-o", path
    )
    assert built.returncode == 0, built.stderr
    os.environ["VLMKERNELS_LIBCUDA"] = str(path)  # read when the driver is first used
    return StandIn(path)


@pytest.fixture
def standin(_standin_library: StandIn) -> Iterator[StandIn]:
    """The stand-in driver in its first state."""
    _standin_library.reset()
    yield _standin_library
    _standin_library.reset()


@pytest.fixture(scope="session")
def kernel_ptx(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], str]:
    """The PTX of tests/gpu/kernels/<name>.cu for an architecture; compiled once a session."""
    if why := toolkit.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("ptx")

    @cache
    def text(name: str, architecture: int) -> str:
        return toolkit.compile_ptx(Path(__file__).parent / "kernels" / f"{name}.cu", folder, architecture)

    return text


@pytest.fixture(scope="session")
def kernel_module(kernel_ptx: Callable[[str, int], str]) -> Callable[[str, int], object]:
    """The same, loaded into the emulator."""
    from vlmkernels import emulator

    return cache(lambda name, architecture: emulator.load(kernel_ptx(name, architecture)))
