"""The report on CUDA kernels that needs no GPU: occupancy, tile rules, counting, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
import torch
from tiny_workloads import tiny

from vlmkernels import backends, images
from vlmkernels.bench.catalog import all_workloads, select
from vlmkernels.bench.gpus import GPUS, Gpu
from vlmkernels.bench.shapes import Shape, load_shapes
from vlmkernels.bench.static import OPERATIONS, run_static, static_passes, static_row
from vlmkernels.bench.static_page import render_static_page, static_charts
from vlmkernels.bench.static_words import static_lines
from vlmkernels.bench.tensor_work import MMA_FLOP, attention_minimum, flash2, loss_minimum, patch_minimum
from vlmkernels.bench.workload import Prepared
from vlmkernels.cli.main import main

A100, H100, RTX4090, RTX5090 = GPUS
BF16 = torch.bfloat16

needs_kernels = pytest.mark.skipif(bool(images.missing("attention")), reason=images.missing("attention"))


def shape(name: str) -> Shape:
    return next(s for s in load_shapes()["attention"] if s["name"] == name)


# --- occupancy ---


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "blocks", "limit"),
    [
        (A100, 128, 255, 36 * 1024, 2, "registers"),  # 8 warps of 8,192 registers, 2 a partition
        (A100, 128, 168, 0, 3, "registers"),  # 21.3 KB of 64 a partition
        (A100, 128, 240, 81 * 1024, 2, "registers"),
        (A100, 128, 128, 82 * 1024, 1, "shared memory"),  # 1 KB more each: 166 of 164
        (H100, 256, 255, 146 * 1024, 1, "registers"),
        (RTX4090, 128, 255, 49 * 1024, 2, "registers"),
        (RTX4090, 128, 100, 50 * 1024, 1, "shared memory"),
        (RTX4090, 32, 32, 0, 24, "blocks"),
        (A100, 1024, 16, 0, 2, "warps"),
        (RTX5090, 1024, 32, 0, 1, "warps"),
        (RTX5090, 128, 0, 0, 12, "warps"),
        (RTX5090, 128, 32, 100 * 1024, 0, "shared memory"),
    ],
)
def test_blocks_of_a_multiprocessor(gpu: Gpu, threads: int, registers: int, shared: int, blocks: int, limit: str) -> None:  # fmt: skip
    found = gpu.occupancy(1000, threads, registers, shared)
    assert (found.blocks, found.limit) == (blocks, limit)
    assert found.waves == (1000 / (blocks * gpu.multiprocessors) if blocks else float("inf"))


# --- tensor-core work ---


def test_the_minimum_is_that_of_padded_products() -> None:
    one = {"B": 1, "Hq": 1, "Hk": 1, "Sq": 257, "Sk": 257, "D": 72}
    assert attention_minimum(one, "forward", BF16) / MMA_FLOP == 2 * 17 * 33 * 4.5
    assert attention_minimum(one, "backward", BF16) / MMA_FLOP == 5 * 17 * 33 * 4.5
    assert attention_minimum(one, "forward", torch.float32) / MMA_FLOP == 3 * 2 * 17 * 33 * 4.5
    causal = {**one, "Sq": 32, "Sk": 32, "D": 16, "causal": True}
    assert attention_minimum(causal, "forward", BF16) / MMA_FLOP == 2 * (2 + 4)
    tiles = {**one, "Sq": 32, "Sk": 40, "D": 16, "tokens_per_tile": 10, "tiles": 4, "visible_tiles": [0, 2]}
    assert attention_minimum(tiles, "forward", BF16) / MMA_FLOP == 2 * 3  # the second 16 rows see 20 keys
    decode = {**one, "Hq": 8, "Sq": 1, "D": 16}
    assert attention_minimum(decode, "forward", BF16) / MMA_FLOP == 2 * 33  # eight rows of one product
    packed = {"sequences": 2, "tokens": {"from": 16, "to": 24, "step": 8}, "Hq": 3, "Hk": 3, "D": 16}
    assert attention_minimum(packed, "forward", BF16) / MMA_FLOP == 2 * 3 * (2 + 2 * 3)
    assert patch_minimum(196, 768, 768, "forward", BF16) == 2 * 208 * 768 * 768
    assert patch_minimum(196, 588, 768, "backward", BF16) == 2 * 768 * 592 * 196
    assert loss_minimum(1024, 1024, 512, "forward+backward", BF16) == 3 * 2 * 1024 * 1024 * 512


def test_the_rule_of_flash_attention_2() -> None:
    found = flash2(shape("clip-l14") | {"D": 72}, "forward", BF16, A100)
    assert found is not None
    assert (found.queries, found.keys, found.head_dim, found.blocks) == (128, 64, 96, 64 * 3)
    assert found.flop / MMA_FLOP / 64 == 11_520  # 24 x 40 x 6 x 2
    assert flash2(shape("clip-l14"), "forward", torch.float32, A100) is None
    decode = shape("llama32v-cross-decode")
    split = flash2(decode, "forward", BF16, A100)
    assert split is not None
    assert (split.queries, split.keys) == (64, 128)
    assert split.blocks > decode["B"] * decode["Hk"]
    tiles = {
        (gpu.name, d): (f.queries, f.keys)
        for gpu in GPUS
        for d in (64, 128, 256)
        if (f := flash2({"B": 9, "Hq": 32, "Hk": 32, "Sq": 2048, "Sk": 2048, "D": d}, "backward", BF16, gpu))
    }
    assert tiles["A100", 64] == (128, 128)
    assert tiles["RTX 5090", 64] == (64, 128)
    assert tiles["RTX 4090", 128] == (64, 64)
    assert tiles["H100", 256] == (64, 64)


def test_every_row_of_the_shapes_has_its_rule() -> None:
    """Operations without CUDA kernels too: their rows appear as soon as there are kernels."""
    names = {(operation, s["name"]) for operation in OPERATIONS for s in load_shapes()[operation]}
    workloads = [w for w in all_workloads(gpu=True) if w.operation in OPERATIONS]
    assert names <= {(w.operation, w.name) for w in workloads}
    for workload in workloads:
        for run_pass in static_passes(workload):
            assert OPERATIONS[workload.operation].minimum(workload.shape, run_pass, BF16) >= 0.9 * workload.flops(workload.shape, run_pass)  # fmt: skip


# --- the report ---


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_static([tiny("self"), tiny("windows"), tiny("image")], (BF16,), (), "vlmkernels bench --static")


@needs_kernels
def test_rows_count_what_one_head_does(report: dict[str, Any]) -> None:
    """19 queries and keys of 2 x 4 heads, two of which share keys: one warp of 32 rows and a block of 64 keys each."""
    forward = next(row for row in report["rows"] if (row["workload"], row["pass"]) == ("self", "forward"))
    (plan,) = forward["plans"]
    assert plan["gpus"] == [gpu.name for gpu in GPUS]
    (kernel,) = plan["kernels"]
    assert kernel["kernel"] == "attention_forward_bfloat16_64_padded"
    assert kernel["executed_blocks"] * 4 == kernel["grid"]
    assert plan["mma_over_minimum"] == pytest.approx(kernel["tensor_flop"] / MMA_FLOP / forward["minimum_mma"])
    assert 1.0 <= plan["mma_over_minimum"] < forward["flash2"]["A100"]["mma_over_minimum"]
    assert plan["other_per_mma"] > plan["work_per_mma"] > 0
    assert plan["bank_conflicts"] >= 0.0
    for found in kernel["occupancy"].values():
        assert 0 < found["registers"] <= 255
        assert found["blocks"] >= 1


@needs_kernels
def test_parts_of_the_grid_stand_for_the_whole() -> None:
    """Scaled counters of some blocks are those of all."""
    workload = tiny("causal")
    row = static_row(workload, BF16, "forward")
    (kernel,) = row["plans"][0]["kernels"]
    assert kernel["executed_blocks"] < kernel["grid"]
    whole = []
    with backends.use_backend("emulator"), backends.emulation(counters=True) as launches:
        workload.prepare(workload.shape, BF16, "forward").ours()()
        whole = [launch.report["counters"] for launch in launches]
    assert kernel["tensor_flop"] == sum(counters["tensor_flops"] for counters in whole)
    assert kernel["sectors"] == sum(c[name]["sectors"] for c in whole for name in ("global_load", "global_store", "global_async"))  # fmt: skip


@needs_kernels
def test_launches_of_the_same_plan_count_once_each() -> None:
    """A call that computes everything three times is one line with three launches."""
    workload = tiny("self")
    prepare = workload.prepare

    def thrice(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
        prepared = prepare(shape, dtype, run_pass)
        make = prepared.ours
        prepared.ours = lambda: lambda: (make()(), make()(), make()())[-1]
        return prepared

    once = static_row(workload, BF16, "forward")["plans"][0]
    object.__setattr__(workload, "prepare", thrice)
    three = static_row(workload, BF16, "forward")["plans"][0]
    (kernel,) = three["kernels"]
    assert kernel["launches"] == 3
    assert kernel["executed_blocks"] == once["kernels"][0]["executed_blocks"]
    assert three["mma_over_minimum"] == pytest.approx(3 * once["mma_over_minimum"])


@needs_kernels
def test_gpus_with_less_shared_memory_have_their_own_plans() -> None:
    """The backward kernel that owns all keys of a head needs 146 KB."""
    (workload,) = select(["clip-b16"], "attention")
    object.__setattr__(workload, "shape", {**workload.shape, "B": 1, "Hq": 1, "Hk": 1})
    row = static_row(workload, BF16, "backward")
    assert [plan["gpus"] for plan in row["plans"]] == [["A100", "H100"], ["RTX 4090", "RTX 5090"]]
    assert "resident" in row["plans"][0]["kernels"][-1]["kernel"]
    assert row["plans"][0]["mma_over_minimum"] < row["plans"][1]["mma_over_minimum"]
    assert len(static_lines(row)) == 1 + 2 * 2 + 2 * 2 + 3 * 2


@needs_kernels
def test_lines_and_page(report: dict[str, Any]) -> None:
    text = "\n".join(line for row in report["rows"] for line in static_lines(row))
    assert re.search(r"mma / minimum \d\.\d\d, FlashAttention-2 \d+\.\d\d \(tile 128 x 128, head_dim 32\)", text)
    page = render_static_page(report)
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert all(chart.to_html() in page for chart in static_charts(report))
    assert len(static_charts(report)) == 4
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        minidom.parseString(svg)
    if missing := images.missing("patch_embed"):
        assert report["missing"] == {"patch_embed": missing}
        assert "Not in the report" in page
    assert json.loads(json.dumps(report)) == report


@needs_kernels
def test_the_command_makes_stores_and_shows_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored, page = tmp_path / "s.json", tmp_path / "s.html"
    assert main(["bench", "qformer-cross", "--static", "--pass", "forward", "--json", str(stored)]) == 0
    made = capsys.readouterr().out
    assert "qformer-cross  attention forward, bfloat16" in made
    assert json.loads(stored.read_text())["kind"] == "static"
    assert main(["bench", "--from", str(stored), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert made.splitlines()[:5] == shown.splitlines()[:5]
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--csv", "f"], "--static has no --csv"), (["--dtype", "int8"], "--dtype has no int8"), (["nothing"], "no workload")],
)  # fmt: skip
def test_arguments_that_make_no_sense(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--static", *arguments]) == 2
    assert words in capsys.readouterr().err
