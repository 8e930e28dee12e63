"""The driver executor against a stand-in for libcuda.so.1: the real loader path, every failure it has words for, and the kernels' results by the emulator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

import vlmkernels as vk
from vlmkernels import backends
from vlmkernels.reference import merge as reference

MERGE = "merge_forward_bfloat16_8x16"


pytestmark = pytest.mark.usefixtures("standin")


def inputs(dtype: torch.dtype = torch.bfloat16, d: int = 64, rows: int = 21) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, rows, d).to(dtype), torch.randn(3, rows)


def merge(outputs: torch.Tensor, lses: torch.Tensor, stream: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = torch.empty_like(outputs[0]), torch.empty_like(lses[0])
    backends.native.merge_attention_forward(outputs, lses, out, lse, "cuda", 1, stream)
    return out, lse


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, for what happens only once."""
    command = [sys.executable, "-c", code, backends.native.__file__]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_results_through_the_loader(standin) -> None:
    outputs, lses = inputs()
    out, lse = merge(outputs, lses)
    expected, expected_lse = reference.merge_attention(outputs, lses)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lse, expected_lse)
    assert standin.launched == [MERGE]


def test_launches_one_after_the_other_on_the_cuda_backend(standin) -> None:
    """Losses have several, which share a workspace and more than 48 KB of shared memory: the bits are the emulator's."""
    found = {}
    for backend in ("cuda", "emulator"):
        torch.manual_seed(0)
        x, y = (torch.randn(140, 72).bfloat16().requires_grad_() for _ in range(2))
        scale = torch.tensor(2.0, requires_grad=True)
        with backends.use_backend(backend):
            loss = vk.contrastive_loss(x, y, scale) + vk.sigmoid_loss(x, y, scale, -3.0)
            found[backend] = [loss, *torch.autograd.grad(loss, (x, y, scale))]
    assert all(torch.equal(a, b) for a, b in zip(found["cuda"], found["emulator"], strict=True))
    gradients = ["merge_rows", "products_bfloat16", "finish_bfloat16", "finish_bfloat16"]
    assert [name.removeprefix("contrastive_") for name in standin.launched] == [
        *("statistics_bfloat16", "merge_statistics"),
        *("sigmoid_bfloat16", *gradients),
        *("info_nce_bfloat16", *gradients),
    ]


def test_operator_on_the_cuda_backend(standin) -> None:
    """From the public function down; gradients too. CPU tensors, because this GPU says that it reaches them."""
    outputs, lses = inputs(torch.float32, 40)
    outputs.requires_grad_(), lses.requires_grad_()
    with backends.use_backend("cuda"):
        out, lse = vk.merge_attention(outputs, lses)
        grads = torch.autograd.grad(out.square().sum() + lse.sum(), (outputs, lses))
    expected, expected_lse = reference.merge_attention(outputs, lses)
    expected_grads = torch.autograd.grad(expected.square().sum() + expected_lse.sum(), (outputs, lses))
    for found, wanted in zip((out, lse, *grads), (expected, expected_lse, *expected_grads), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert [name.split("_")[1] for name in standin.launched] == ["forward", "backward"]
    assert standin.calls("cuStreamSynchronize") == 2


def test_loading_happens_once(standin) -> None:
    merge(*inputs(torch.float16))
    standin.reset()
    merge(*inputs(torch.float16))
    for function in ("cuModuleLoadData", "cuModuleGetFunction", "cuDevicePrimaryCtxRetain", "cuFuncSetAttribute"):
        assert standin.calls(function) == 0
    assert standin.calls("cuLaunchKernel") == 1
    assert standin.library.standin_context_depth() == 0


def test_the_stream_is_the_one_given(standin) -> None:
    merge(*inputs(), stream=0xABC0)
    assert standin.library.standin_last_stream() == 0xABC0


def test_several_threads(standin) -> None:
    """Contexts belong to threads; kernels are loaded once for all."""
    outputs, lses = inputs()
    expected = reference.merge_attention(outputs, lses)[0]
    found: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(merge(outputs, lses)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for out in found:
        torch.testing.assert_close(out, expected)


def test_graph_capture(standin) -> None:
    """A captured launch waits for nothing and runs when the graph does, on what memory then holds."""
    outputs, lses = inputs()
    out, lse = merge(outputs, lses)
    plan = backends.native.merge_attention_forward_plan(outputs, lses, out, lse)
    standin.reset()
    standin.library.standin_begin_capture()
    backends.native.cuda_launch(plan, 0, 0xABC0)
    assert standin.library.standin_end_capture() == 1, "the capture was broken"
    assert standin.launched == []
    outputs.mul_(2)
    standin.library.standin_replay()
    torch.testing.assert_close(out, reference.merge_attention(outputs, lses)[0])
    standin.library.standin_begin_capture()
    with pytest.raises(backends.native.DriverError, match="before the capture"):
        merge(outputs, lses)  # waits for its result, because the tensors are the CPU's


def test_shared_memory_is_opted_into_once(standin) -> None:
    """Up to 48 KB need nothing; more is asked for when a launch first needs it; more than the GPU has is refused."""
    outputs, lses = inputs(torch.float32)
    out, lse = outputs[0].clone(), lses[0].clone()  # alive as long as the plan that points to them
    plan = backends.native.merge_attention_forward_plan(outputs, lses, out, lse)
    for kilobytes, asked in ((48, 0), (100, 1), (64, 1), (160, 2)):
        backends.native.cuda_launch({**plan, "shared_bytes": kilobytes * 1024}, 0, 0)
        assert standin.calls("cuFuncSetAttribute") == asked
    with pytest.raises(backends.native.DriverError, match="204800 bytes of shared memory failed"):
        backends.native.cuda_launch({**plan, "shared_bytes": 200 * 1024}, 0, 0)


def test_plans_no_gpu_takes_do_not_reach_the_driver(standin) -> None:
    outputs, lses = inputs()
    plan = backends.native.merge_attention_forward_plan(outputs, lses, outputs[0].clone(), lses[0].clone())
    for wrong, words in (
        ({"grid": (1, 65536, 1)}, "grid is too large"),
        ({"grid": (0, 1, 1)}, "grid is empty"),
        ({"block": (2048, 1, 1)}, "1024 threads"),
        ({"shared_bytes": 300 * 1024}, "227 KB"),
        ({"parameters": bytes(5000)}, "4096 bytes"),
    ):
        with pytest.raises(RuntimeError, match=words):
            backends.native.cuda_launch({**plan, **wrong}, 0, 0)
    assert standin.calls("cuLaunchKernel") == 0
    with pytest.raises(backends.native.DriverError, match="no GPU 3"):
        backends.native.cuda_launch(plan, 3, 0)


FAULTS = [
    # function, code, what the message says
    ("cuLaunchKernel", 2, "OUT_OF_MEMORY.*empty_cache"),
    ("cuLaunchKernel", 700, "ILLEGAL_ADDRESS.*faulted.*restart"),
    ("cuLaunchKernel", 719, "LAUNCH_FAILED.*faulted.*restart"),
    ("cuLaunchKernel", 701, "more registers or shared memory"),
    ("cuLaunchKernel", 1, "launching merge_forward_bfloat16_8x16 failed"),
    ("cuStreamSynchronize", 716, "waiting for GPU 0 failed.*faulted"),
    ("cuCtxGetCurrent", 3, "forked"),
    ("cuCtxPushCurrent_v2", 201, "making the CUDA context current failed"),
]


@pytest.mark.parametrize(("function", "code", "words"), FAULTS)
def test_a_failing_launch_says_what_to_do(standin, function: str, code: int, words: str) -> None:
    merge(*inputs())
    standin.fail(function, code)
    with pytest.raises(backends.native.DriverError, match=words):
        merge(*inputs())
    standin.reset()
    merge(*inputs())
    assert standin.library.standin_context_depth() == 0


def test_a_fault_of_the_device_stays(standin) -> None:
    merge(*inputs())
    standin.fail("cuLaunchKernel", 700)
    for _ in range(2):
        with pytest.raises(backends.native.DriverError, match="restart it"):
            merge(*inputs())


LOADING = [
    # function, code, what the message says
    ("cuModuleLoadData", 209, "machine code for this GPU"),
    ("cuModuleLoadData", 222, "driver is too old.*580"),
    ("cuModuleLoadData", 2, "loading the kernels of merge_attention/merge failed.*OUT_OF_MEMORY"),
    ("cuModuleLoadData", 200, "reinstall vlmkernels"),
    ("cuModuleGetFunction", 500, "finding the kernel merge_forward_bfloat16_8x16 failed.*reinstall"),
    ("cuDevicePrimaryCtxRetain", 46, "opening GPU 0 failed.*exclusively"),
    ("cuDevicePrimaryCtxRetain", 2, "OUT_OF_MEMORY"),
    ("cuInit", 100, "no GPU is visible"),
    ("cuInit", 803, "reboot"),
    ("cuInit", 34, "toolkit's stand-in"),
    ("cuInit", 999, "gives no reason"),
    ("cuDriverGetVersion", 3, "driver's version failed"),
    ("cuDeviceGetCount", 100, "no GPU is visible"),
    ("cuDeviceGet", 101, "CUDA_VISIBLE_DEVICES"),
    ("cuThreadExchangeStreamCaptureMode", 1, "graph capture"),
]
# A process without torch, which starts at once: the module alone, and a plan whose pointers nobody follows.
_ALONE = """
import ctypes, importlib.util, os, re, sys
from importlib.machinery import ExtensionFileLoader
spec = importlib.util.spec_from_loader("_native", ExtensionFileLoader("_native", sys.argv[1]))
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
"""
_TRY = (
    _ALONE
    + """
library = ctypes.CDLL(os.environ["VLMKERNELS_LIBCUDA"])
library.standin_reset(native.image_folder().encode(), None)
plan = {"image": "merge_attention/merge", "kernel": "merge_forward_bfloat16_8x16", "grid": (1, 1, 1), "block": (128, 1, 1),
        "shared_bytes": 0, "parameters": bytes(440)}
def run(device=0):
    native.cuda_launch(plan, device, 0)
def refused(words, device=0):
    try:
        run(device)
    except native.DriverError as error:
        if not re.search(words, str(error)):
            sys.exit(f"{error!r} does not say {words!r}")
    else:
        sys.exit(f"nothing was refused, expected {words!r}")
"""
)


def test_failures_before_the_first_launch_are_explained_and_not_remembered() -> None:
    """In one process, from the library's first call to the kernel's: each step fails once, and the next try goes on from there."""
    order = ["cuDriverGetVersion", "cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuThreadExchangeStreamCaptureMode", "cuModuleLoadData", "cuModuleGetFunction"]  # fmt: skip
    steps = [
        f"library.standin_fail(b{function!r}, {code}, 1); refused({words!r})"
        for function, code, words in sorted(LOADING, key=lambda fault: order.index(fault[0]))
    ]
    done = fresh(_TRY + "\n".join(steps) + "\nrun(); print('ran')")
    assert done.stdout.strip() == "ran", done.stderr


def test_gpus_without_an_image_and_with_an_old_driver() -> None:
    """Every GPU of a process loads for itself, so each of these is the first launch of its own."""
    done = fresh(
        _TRY
        + """
library.standin_set(b"devices", 7)
library.standin_set(b"driver_version", 12040)
library.standin_fail(b"cuModuleLoadData", 209, 1)
refused("driver is too old.*580.*supports CUDA 12.4")
library.standin_set(b"capability", 75)
refused("NO_BINARY_FOR_GPU")
for device, capability in enumerate((80, 87, 89, 90, 100, 120, 121)):
    library.standin_set(b"capability", capability)
    run(device)
print(library.standin_calls(b"cuModuleLoadData"), library.standin_calls(b"cuLaunchKernel"))
"""
    )
    assert done.stdout.split() == ["9", "7"], done.stderr


def test_loading_during_a_capture_is_safe() -> None:
    """The first launch of all inside a capture: loading suspends the capture's rules and does not end up in the graph."""
    done = fresh(
        _TRY
        + """
library.standin_begin_capture()
run()
print(library.standin_calls(b"cuModuleLoadData"), library.standin_end_capture())
"""
    )
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_no_library_and_no_functions(tmp_path) -> None:
    code = _ALONE + "try: native.cuda_devices()\nexcept native.DriverError as e: print(e)"
    assert "no NVIDIA driver" in fresh(code, VLMKERNELS_LIBCUDA="/nowhere/libcuda.so.1").stdout
    (tmp_path / "empty.c").write_text("int cuInit(unsigned f) { return (int)f; }")
    subprocess.run(
        ["g++", "-x", "c", "-shared", "-fPIC", str(tmp_path / "empty.c"), "-o", str(tmp_path / "old.so")], check=True
    )
    assert "has no function cu" in fresh(code, VLMKERNELS_LIBCUDA=str(tmp_path / "old.so")).stdout


def test_reasons_name_the_obstacle(standin) -> None:
    assert backends.reasons("cuda", "merge_attention", "cuda", torch.bfloat16) == []
    assert backends.reasons("cuda", "merge_attention", "cpu", torch.bfloat16) == []
    standin.set("pageable", 0)
    assert "does not reach" in backends.reasons("cuda", "merge_attention", "cpu", torch.bfloat16)[0]
    assert "no CUDA kernel" in backends.reasons("cuda", "convolution", "cuda", torch.bfloat16)[0]
    assert "float64" in backends.reasons("cuda", "merge_attention", "cuda", torch.float64)[0]
    with pytest.raises(ValueError, match="does not reach its memory"):
        backends.native.merge_attention_forward(
            *inputs(), *(t.clone() for t in (inputs()[0][0], inputs()[1][0])), "cuda", 1, 0
        )


def test_devices_are_described(standin) -> None:
    found = backends.native.cuda_devices()
    assert found["cuda_version"] == (13, 0)
    assert found["devices"][0]["name"] == "Stand-in GPU"
    assert found["devices"][0]["compute_capability"] == (8, 0)
