"""The suite on a GPU, without one: a clock that stands for the graphs, and tensors of another device for the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_results import result_of
from tiny_workloads import tiny

from vlmkernels import backends
from vlmkernels.bench import attention, contrastive, gpu_suite, packed, patch_embed
from vlmkernels.bench.catalog import all_workloads, select
from vlmkernels.bench.compare import compare_lines
from vlmkernels.bench.figures import length_charts, roofline_charts
from vlmkernels.bench.gpu_clock import GraphClock, replayed
from vlmkernels.bench.page import render_page
from vlmkernels.bench.run import Plan, Row
from vlmkernels.bench.suite import row_lines
from vlmkernels.bench.timing import Settings, Times
from vlmkernels.bench.workload import Call, Workload
from vlmkernels.cli.main import main

PLAN = Plan(dtypes=(torch.bfloat16,), threads=(1,), gpu=True, timing=Settings(samples=3))


def test_graphs_are_replayed_in_turns() -> None:
    order: list[str] = []

    def capture(call: Call) -> str:
        return str(call()[0])

    def seconds(graph: str) -> float:
        order.append(graph)
        return float(len(order))

    def broken() -> Any:
        raise RuntimeError("operation not permitted\nwhen capturing")

    calls: dict[str, Any] = {"ours": lambda: ("a",), "peer": lambda: ("b",), "broken": broken}
    times, failed = replayed(calls, 3, capture, seconds)
    assert order == ["a", "b"] * 3
    assert (times["ours"].median, times["peer"].median, times["ours"].samples) == (3.0, 4.0, 3)
    assert failed == {"broken": "not in a CUDA graph: RuntimeError: operation not permitted"}
    with pytest.raises(RuntimeError, match="not permitted"):
        replayed({"ours": broken}, 3, capture, seconds)


def clock(calls: dict[str, Call]) -> tuple[dict[str, Times], dict[str, str]]:
    for call in calls.values():
        call()
    return {name: Times.of([1e-3 * (n + 1)] * 3) for n, name in enumerate(calls)}, {}


def rows_of(workload: Workload, monkeypatch: pytest.MonkeyPatch, plan: Plan = PLAN) -> list[Row]:
    monkeypatch.setattr(backends, "reasons", lambda backend, *_: [])
    return list(gpu_suite.run_gpu_workload(workload, plan, clock, "cpu"))


def test_rows_have_matches_times_and_the_peers_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows_of(tiny("self"), monkeypatch)
    assert list(row["contenders"]) == ["ours", "sdpa-flash", "sdpa-efficient", "sdpa-cudnn", "flash-attn"]
    ours = row["contenders"]["ours"]
    assert ours["match"]["passed"]
    assert ours["flops_per_second"] == row["flops"] / 1e-3
    assert "sdpa-cudnn" in row["contenders"]
    assert "not installed" in row["contenders"]["flash-attn"]["missing"]
    assert row["contenders"]["sdpa-flash"]["ratio"] == 2.0
    assert row["command"] == "vlmkernels bench self --op attention --pass forward --dtype bfloat16 --device cuda --peers sdpa-flash,sdpa-cudnn,sdpa-efficient,flash-attn --samples 3"  # fmt: skip
    assert "self  attention forward, bfloat16, GPU" in row_lines(row)[0]


def test_the_batch_of_all_shapes_but_losses_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(dtypes=(torch.float32,), threads=(1,), gpu=True, batch=3, peers=())
    (row,) = rows_of(tiny("self"), monkeypatch, plan)
    assert row["shape"]["B"] == 3
    assert row["command"].endswith("--peers none --batch 3")
    (row,) = rows_of(tiny("info_nce"), monkeypatch, plan)
    assert row["shape"]["B"] == 33


def test_an_operation_without_kernels_is_named_as_missing() -> None:
    (row,) = gpu_suite.run_gpu_workload(tiny("image"), PLAN, clock, "cpu")
    assert list(row["contenders"]) == ["ours"]
    assert len(row["contenders"]["ours"]["missing"]) > 10


def test_results_of_a_gpu_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(rows_of(tiny("self"), monkeypatch))
    result |= {"ceilings": {}, "ceilings_after": {}, "machine": {**result["machine"], "gpu": "NVIDIA <Test>"}}
    page = render_page(result)
    assert "NVIDIA &lt;Test&gt;" in page
    assert "bfloat16, GPU" in page
    assert "Ceilings" not in page
    assert roofline_charts(result) == []
    assert length_charts(result) == []
    assert "1 same" in "\n".join(compare_lines(result, result))


def graph_free(name: str) -> list[str]:
    return {"self": ["sdpa", "eager"], "windows": ["split"], "image": ["unfused"], "video": ["unfused"], "patches": ["conv3d", "linear"],
            "info_nce": ["open_clip", "huggingface", "chunked"], "sigmoid": ["open_clip", "huggingface", "chunked"]}[name]  # fmt: skip


@pytest.mark.parametrize("name", ["self", "windows", "image", "video", "patches", "info_nce", "sigmoid"])
def test_inputs_and_peers_are_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the device "meta" do not mix with those of the CPU. It has no generators."""
    for module in (attention, packed, patch_embed, contrastive):
        monkeypatch.setattr(module, "seeded_generator", lambda: None)
    workload = tiny(name)
    with torch.device("meta"):
        prepared = workload.prepare(workload.shape, torch.float32, "forward")
    for peer in graph_free(name):
        make: Callable[[], Call] = prepared.peers[peer] if peer in prepared.peers else prepared.parts[peer]
        assert all(output.is_meta for output in make()())


def test_a_gpu_has_more_losses_and_no_models() -> None:
    gpu = {w.name for w in all_workloads(gpu=True)}
    assert "clip-32k" in gpu
    assert not any(w.operation in ("model", "host") for w in all_workloads(gpu=True))
    with pytest.raises(ValueError, match="no workload"):
        select(["clip-32k"], None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda", "--bars"], "no --bars"),
        (["--device", "cuda", "--op", "model"], "no --bars"),
        (["--device", "cpu", "--batch", "3"], "--batch"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "clip-b16", "--device", "cuda"]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err


@pytest.mark.cuda
@pytest.mark.skipif(bool(gpu_suite.gpu_reasons()), reason="; ".join(gpu_suite.gpu_reasons()))
@pytest.mark.parametrize("name", ["self", "causal", "tiles", "padding", "decode", "windows"])
def test_on_a_gpu(name: str) -> None:
    plan = Plan(dtypes=(torch.bfloat16, torch.float32), threads=(1,), passes=("all",), gpu=True)
    graphs = GraphClock(3)
    with torch.cuda.stream(graphs.stream):
        rows = list(gpu_suite.run_gpu_workload(tiny(name), plan, graphs))
    assert len(rows) == 6
    for row in rows:
        assert row["contenders"]["ours"]["match"]["passed"]
        assert row["contenders"]["ours"]["times"]["samples"] == 3
