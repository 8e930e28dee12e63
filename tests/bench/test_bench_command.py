"""The measured ceilings, and the command line of the suite."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_workloads import QUICK_CEILINGS, tiny

from vlmkernels.bench.ceilings import bandwidth_buffer_bytes, measure_ceilings
from vlmkernels.bench.files import write_json
from vlmkernels.bench.jobs import bar_jobs, scaling_jobs
from vlmkernels.bench.run import Plan, row_command
from vlmkernels.bench.shapes import load_shapes
from vlmkernels.cli.main import main


@pytest.mark.parametrize("threads", [1, 2])
def test_work_is_counted_for_all_threads(native: Any, threads: int) -> None:
    for routine in (native.ceiling_multiply_add, native.ceiling_exp2):
        work, seconds = routine(100, threads)
        assert work == threads * routine(100, 1)[0]
        assert work == routine(200, threads)[0] / 2
        assert seconds > 0
    source, target = torch.rand(4096), torch.zeros(4096)
    assert native.ceiling_read(source, threads)[0] == 4 * 4096
    assert native.ceiling_copy(target, source, threads)[0] == 8 * 4096
    assert torch.equal(source, target)


def test_every_instruction_set_has_its_own_ceiling(native: Any) -> None:
    before = native.active_isa()
    lanes = {"baseline": 4, "avx2": 8, "avx512": 16, "avx512_bf16": 16, "amx_bf16": 16}
    try:
        for isa in native.available_isas():
            native.set_active_isa(isa)
            work = native.ceiling_multiply_add(10, 1)[0]
            assert work % (2 * lanes[isa] * 10) == 0
            has_dot = isa in ("avx512_bf16", "amx_bf16") and not native.build["emulated_avx512"]
            assert (native.ceiling_bf16_dot(10, 1)[0] > 0) == has_dot
            has_tiles = isa == "amx_bf16" and has_dot
            assert (native.ceiling_bf16_tiles(10, 1)[0] > 0) == has_tiles
            found = measure_ceilings(1, QUICK_CEILINGS)
            assert found.isa == isa
            assert found.flops(torch.bfloat16)[0] == ("bf16 tiles" if has_tiles else "bf16 dot" if has_dot else "FMA")
            assert found.flops(torch.float16) == ("FMA", found.multiply_add)
    finally:
        native.set_active_isa(before)


def test_ceilings_refuse_what_makes_no_sense(native: Any) -> None:
    for call in (
        lambda: native.ceiling_multiply_add(0, 1),
        lambda: native.ceiling_exp2(1, 0),
        lambda: native.ceiling_read(torch.zeros(4, dtype=torch.float64), 1),
        lambda: native.ceiling_read(torch.zeros(8)[::2], 1),
        lambda: native.ceiling_read(torch.zeros(1), 2),
        lambda: native.ceiling_copy(torch.zeros(3), torch.zeros(4), 1),
    ):
        with pytest.raises(ValueError, match=r"must|give"):
            call()


def test_the_buffer_is_larger_than_any_cache() -> None:
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    caches = [int(size[:-1]) * 1024 for size in sizes if size.endswith("K")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert bandwidth_buffer_bytes() >= min(4 * max([*caches, 2**20]), memory // 8)


def test_list_names_workloads_and_peers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("clip-b16", "qwen2vl-packed", "siglip-16k", "tiny-attention", "peers: sdpa"))
    assert main(["bench", "--list", "--op", "model"]) == 0
    assert "siglip-so400m-896-vision" in capsys.readouterr().out


def test_help_says_what_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    out = capsys.readouterr().out
    for option in ("--op", "--pass", "--dtype", "--threads", "--peers", "--json", "--csv", "--html", "--compare", "--scaling", "--bars", "--list", "--from", "--static", "--device", "--batch"):  # fmt: skip
        assert option in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no workload is called nothing"),
        (["clip-b16", "--dtype", "int8"], "--dtype has no int8"),
        (["clip-b16", "--peers", "jax"], "--peers has no jax"),
        (["clip-b16", "--threads", "0"], "--threads is 0"),
        (["clip-b16", "--samples", "0"], "--samples"),
        (["--compare", "missing-a", "missing-b"], "there is no file"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: tmp_path / f"r.{kind}" for kind in ("json", "csv", "html")}
    options = [f"--{kind}={path}" for kind, path in files.items()]
    assert main(["bench", "--op", "host", "--samples", "2", *options]) == 0
    out = capsys.readouterr().out
    assert "ceilings of" in out
    assert "tiny-attention  host forward, float32, 1 thread" in out
    result = json.loads(files["json"].read_text())
    assert result["command"].startswith("vlmkernels bench --op host")
    assert [row["workload"] for row in result["rows"]] == ["tiny-attention", "tiny-sdpa", "tiny-patch-embed"]
    assert all(path.stat().st_size > 500 for path in files.values())
    assert main(["bench", "--compare", str(files["json"]), str(files["json"])]) == 0
    assert "3 same" in capsys.readouterr().out


def test_stored_results_are_shown_without_measuring(tmp_path: Path, result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    write_json(result, tmp_path / "r.json")
    page = tmp_path / "sub" / "page.html"
    assert main(["bench", "--from", str(tmp_path / "r.json"), "--bars", "--html", str(page)]) == 0
    assert "not measurable or not measured here" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")


def test_the_jobs_of_the_bars_and_curves_are_complete() -> None:
    plan = Plan(dtypes=(torch.float32, torch.bfloat16, torch.float16), threads=(1, 2))
    jobs = bar_jobs(plan)
    passes = {
        (w.operation, w.name, p, dtype) for w, plan_of in jobs for p in plan_of.passes_of(w) for dtype in plan_of.dtypes
    }
    for shape in load_shapes()["attention"]:
        assert ("attention", shape["name"], "forward", torch.float16) in passes
    assert ("attention", "mllama-vision-tile", "backward", torch.bfloat16) in passes
    assert ("attention", "clip-b16", "forward+backward", torch.float32) in passes
    assert ("patch_embed", "qwen2vl-packed", "backward", torch.float32) in passes
    assert ("contrastive", "siglip-16k", "forward+backward", torch.bfloat16) in passes
    assert ("host", "tiny-attention", "forward", torch.float32) in passes
    assert any(w.sweep and w.sweep["axis"] == "S" for w, _ in jobs)
    axes = {w.sweep["axis"] for w, _ in scaling_jobs("all", plan) if w.sweep}
    assert axes == {"S", "B", "threads"}
    assert {w.operation for w, _ in scaling_jobs("B", plan)} == {"attention", "patch_embed", "contrastive"}


def test_the_command_of_a_row_measures_that_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMKERNELS_CPU_ISA", "avx2")
    plan = Plan(dtypes=(torch.float32,), threads=(2,), full=True, call_seconds=0.5, peers=("all",))
    command = row_command(tiny("windows"), plan, torch.float32, "backward", 2)
    assert command == (
        "VLMKERNELS_CPU_ISA=avx2 vlmkernels bench windows --op attention --pass backward --dtype float32 --threads 2 "
        "--peers split,batched,nested,mask,flash-attn --full --seconds 0.5"
    )
