"""The compiled module as a guest in a process: instruction sets, threads, the GIL, forks, memory it must not touch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

import vlmkernels as vk
from vlmkernels import backends

pytestmark = pytest.mark.skipif(backends.native is None, reason=backends.native_error)


def qkv(s: int = 100, d: int = 40, b: int = 1) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(b, 4, s, d) for _ in range(3))


def test_instruction_sets_are_ordered_and_selectable(native) -> None:
    isas = native.available_isas()
    assert isas[0] == "baseline"
    before = native.active_isa()
    for isa in isas:
        native.set_active_isa(isa)
        assert native.active_isa() == isa
    native.set_active_isa(before)
    with pytest.raises((ValueError, RuntimeError), match="sse9"):
        native.set_active_isa("sse9")


def test_environment_forces_a_lower_set(native) -> None:
    code = "from vlmkernels import _native; print(_native.active_isa())"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "VLMKERNELS_CPU_ISA": "baseline"},
        check=True,
    )
    assert out.stdout.strip() == "baseline"


def test_no_libtorch_inside(native) -> None:
    """The module loads and works before torch is imported."""
    code = "import importlib.util, sys; from importlib.machinery import ExtensionFileLoader as L; s = importlib.util.spec_from_loader('_native', L('_native', sys.argv[1])); m = importlib.util.module_from_spec(s); s.loader.exec_module(m); print(m.active_isa(), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code, native.__file__], capture_output=True, text=True, check=True)
    assert out.stdout.split() == [
        native.active_isa() if "VLMKERNELS_CPU_ISA" not in os.environ else out.stdout.split()[0],
        "False",
    ]


def test_one_openmp_library() -> None:
    code = (
        "import torch, vlmkernels, re; q = torch.randn(1, 4, 64, 16); vlmkernels.attention(q, q, q); torch.mm(q[0, 0], q[0, 0].T)\n"
        "print(len(set(re.findall(r'\\S*lib[gi]?omp[-.\\w]*', open('/proc/self/maps').read()))))"
    )
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("needs /proc")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "1"


def test_set_num_threads_is_obeyed() -> None:
    """With one thread no other thread of the process spends time on a kernel."""
    code = (
        "import torch, vlmkernels, time, os\n"
        "torch.set_num_threads(1)\n"
        "q = torch.randn(1, 8, 1024, 64)\n"
        "vlmkernels.attention(q, q, q)\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    if not os.path.exists("/proc/self/task"):
        pytest.skip("needs /proc")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    one = int(out.stdout)
    more = subprocess.run(
        [sys.executable, "-c", code.replace("threads(1)", "threads(4)")], capture_output=True, text=True, check=True
    )
    assert int(more.stdout) >= one + 3


def test_the_gil_is_released() -> None:
    q, k, v = qkv(3000, 64)
    ticks = 0
    done = threading.Event()

    def work() -> None:
        with torch.no_grad():
            vk.attention(q, k, v)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.0005)
    thread.join()
    assert ticks > 3


def test_several_python_threads_at_once() -> None:
    inputs = [qkv(70 + n) for n in range(4)]
    expected = [vk.attention(*i) for i in inputs]
    found: list[list[torch.Tensor]] = [[] for _ in inputs]

    def work(n: int) -> None:
        for _ in range(20):
            found[n].append(vk.attention(*inputs[n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(out, expected[n]) for n in range(4) for out in found[n])


class Embedded(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.weight = torch.randn(32, 3, 8, 8)
        vk.patch_embed(torch.rand(4, 3, 64, 64), self.weight)  # the pool is running before the workers fork

    def __len__(self) -> int:
        return 12

    def __getitem__(self, n: int) -> torch.Tensor:
        pixels = torch.full((1, 3, 64, 64), n, dtype=torch.uint8)
        return vk.patch_embed(pixels, self.weight)[0]


def test_forked_data_loader_workers() -> None:
    data = Embedded()
    loader = torch.utils.data.DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60)
    found = torch.cat(list(loader))
    expected = torch.stack([data[n] for n in range(12)])
    torch.testing.assert_close(found, expected)


def test_repeats_are_bitwise_equal(backend: str) -> None:
    if backend == "reference":
        pytest.skip("kernels only")
    q, k, v = qkv(77, 24)
    first = vk.attention(q, k, v, causal="top_left")
    assert all(torch.equal(first, vk.attention(q, k, v, causal="top_left")) for _ in range(1000))


def surrounded(shape: tuple[int, ...], dtype: torch.dtype, slack: int = 64) -> torch.Tensor:
    """A tensor inside a buffer of NaN: reading past its end poisons results."""
    count = 1
    for n in shape:
        count *= n
    buffer = torch.full((count + 2 * slack,), float("nan"), dtype=dtype)
    inside = buffer[slack : slack + count].view(shape)
    inside.copy_(torch.randn(shape))
    return inside


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_outside_the_tensors_is_read(backend: str, dtype: torch.dtype) -> None:
    for s, d in ((1, 8), (17, 24), (65, 72), (130, 136)):
        made = [surrounded((2, 3, s, d), dtype).requires_grad_() for _ in range(3)]
        plain = [t.detach().clone().requires_grad_() for t in made]
        for call in (lambda *a: vk.attention(*a), lambda *a: vk.attention(*a, causal="top_left", window=(5, 0))):
            out, expected = call(*made), call(*plain)
            assert torch.equal(out, expected)
            for a, b in zip(
                torch.autograd.grad(out.sum(), made), torch.autograd.grad(expected.sum(), plain), strict=True
            ):
                assert torch.equal(a, b)
    for m, n, d in ((1, 1, 1), (9, 9, 5), (33, 40, 17)):
        image, text = surrounded((m, d), dtype), surrounded((n, d), dtype)
        assert vk.contrastive_loss(image, text, 1.0).isfinite()
        assert vk.sigmoid_loss_and_grads(image, text, 1.0, 0.0)[1].image.isfinite().all()
    pixels, weight = surrounded((2, 3, 13, 17), dtype), surrounded((11, 3, 5, 3), dtype)
    assert vk.patch_embed(pixels, weight).isfinite().all()


def test_more_than_65535_windows(backend: str) -> None:
    """Qwen-VL style: many tiny sequences packed."""
    count = 66_000
    x = torch.randn(count, 1, 8)
    lengths = torch.arange(count + 1, dtype=torch.int32)
    if backend == "reference":
        count = 300
        x, lengths = x[:count], lengths[: count + 1]
    torch.testing.assert_close(vk.attention_varlen(x, x, x, lengths, lengths), x, rtol=1e-6, atol=1e-6)
