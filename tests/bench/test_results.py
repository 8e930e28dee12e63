"""What is made of results: comparison, bars, page, files, the table of the README."""

from __future__ import annotations

import copy
import csv
import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from vlmkernels.bench.bars import bar_lines, evaluate_bars
from vlmkernels.bench.compare import compare_lines, compare_results
from vlmkernels.bench.figures import length_charts, memory_charts, roofline_charts, scaling_charts
from vlmkernels.bench.files import read_json, write_csv, write_json
from vlmkernels.bench.page import render_page
from vlmkernels.bench.plots import Chart, Series
from vlmkernels.bench.scaling import doublings, scaling_lines, series_of
from vlmkernels.bench.timing import Settings, Times, interleaved

ROOT = Path(__file__).parents[2]


def contender(kind: str, seconds: float, spread: float = 0.02, **fields: Any) -> dict[str, Any]:
    times = {"median": seconds, "q1": seconds * (1 - spread), "q3": seconds * (1 + spread), "best": seconds * 0.9, "samples": 10}  # fmt: skip
    return {"kind": kind, "times": {**times, "calls_per_sample": 1}, **fields}


def row(workload: str, ours: float, operation: str = "attention", run_pass: str = "forward", dtype: str = "float32", threads: int = 1, share: float = 0.5, shape: dict[str, Any] | None = None, **others: float) -> dict[str, Any]:  # fmt: skip
    passed = {"passed": True, "share": 0.4, "worst": "out", "relative": 1e-7, "gradients": None}
    contenders = {"ours": contender("ours", ours, ratio=1.0, share=share, match=passed, flops_per_second=1e10)}
    for name, seconds in others.items():
        kind = "part" if name in ("three products", "linear") or name.startswith("ours") else "peer"
        contenders[name.replace("_products", " products")] = contender(kind, seconds, ratio=seconds / ours)
    return {
        "operation": operation, "workload": workload, "pass": run_pass, "dtype": dtype, "threads": threads, "note": "", "bound": "compute",
        "shape": {"B": 1, "Hq": 1, "Hk": 1, "Sq": 1024, "Sk": 1024, "D": 64} if shape is None else shape,
        "command": f"vlmkernels bench {workload} --threads {threads}", "formula": "FLOP = x", "flops": 1e9, "bytes": 1e6, "items": 0,
        "ceiling": {"name": "FMA", "value": 2e10}, "contenders": contenders,
    }  # fmt: skip


def result_of(
    rows: list[dict[str, Any]], isa: str = "avx2", dot: float | None = None, tiles: float | None = None
) -> dict[str, Any]:
    ceilings = {
        str(t): {"isa": isa, "threads": t, "multiply_add": 5e10 * t, "bf16_dot": dot, "bf16_tiles": tiles, "exp2": 1e9, "read": 1e10, "copy": 1e10,
                 "torch_product": {"float32": 4e10 * t, "bfloat16": 1e10 * t}}
        for t in (1, 2)
    }  # fmt: skip
    machine = {
        "date": "2026-01-02T03:04:05Z", "processor": "A <fast> one", "cores": 2, "memory_bytes": 2**34, "system": "Linux x86_64", "python": "3.11",
        "torch": "2.13", "vlmkernels": "0.1", "instruction_set": isa, "instruction_sets": ["baseline", isa], "emulated_avx512": False,
        "compiler": "GNU 12", "packages": {"openvino": None},
    }  # fmt: skip
    return {"schema": 1, "command": "vlmkernels bench", "machine": machine, "plan": {}, "ceilings": ceilings, "ceilings_after": ceilings, "rows": rows}  # fmt: skip


def bar(result: dict[str, Any], what: str, condition: str = "") -> Any:
    return next(b for b in evaluate_bars(result) if b.what.startswith(what) and b.condition.startswith(condition))


# --- timing ---


def test_interleaved_takes_turns_and_gives_quartiles() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = interleaved(calls, Settings(samples=5, seconds=0.0, most=5, shortest=0.0))
    assert order[-10:] == ["a", "b"] * 5
    assert all(t.q1 <= t.median <= t.q3 and t.samples == 5 for t in times.values())


def test_slow_rounds_get_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)) * 3)
    times = interleaved({"a": lambda: None, "b": lambda: None}, Settings(samples=10))
    assert times["a"].samples == 6
    assert Times.of([3.0]).q1 == 3.0


# --- comparison ---


def test_compare_names_what_changed_beyond_the_quartiles() -> None:
    old = result_of([row("a", 1.0, sdpa=2.0), row("b", 1.0), row("c", 1.0), row("d", 1.0), row("e", 1.0)])
    new = copy.deepcopy(old)
    new["rows"] = [row("a", 0.8, sdpa=2.1), row("b", 1.01), row("c", 1.5), row("d", 1.0, shape={"B": 2}), row("f", 1.0)]
    verdicts = {change.key[1]: change.verdict for change in compare_results(old, new)}
    assert verdicts == {"a": "faster", "b": "same", "c": "slower", "d": "other shape", "f": "only in the new", "e": "only in the old"}  # fmt: skip
    text = "\n".join(compare_lines(old, new))
    assert re.search(r"faster +a .*1 s -> 800 ms \(x 0\.80, peer x 1\.05\)", text)
    assert "1 faster, 1 slower, 1 same" in text
    assert not re.search(r"^same", text, re.MULTILINE)


def test_compare_sees_a_result_that_fails_now() -> None:
    old, new = result_of([row("a", 1.0)]), result_of([row("a", 1.0)])
    new["rows"][0]["contenders"]["ours"] = {"kind": "ours", "match": {"passed": False, "share": 9.0, "worst": "out"}}
    (change,) = compare_results(old, new)
    assert change.verdict == "fails now"


# --- bars ---


def test_bars_take_the_worst_row_and_the_geometric_mean() -> None:
    rows = [row("a", 1.0, share=0.9, sdpa=1.4), row("b", 1.0, share=0.83, sdpa=3.0)]
    result = result_of(rows)
    share = bar(result, "attention forward, S >= 577", "float32, 1")
    assert (share.met, share.measured) == (False, "83% (b, the worst of 2)")
    mean = bar(result, "attention forward x torch SDPA, mean", "float32, 1")
    assert (mean.met, mean.measured) == (True, "2.05 over 2 workloads")
    assert bar(result, "attention forward x torch SDPA, least", "float32, 1").met is True
    assert bar(result, "on AVX2", "float32, 1").met is True
    assert bar(result, "decoding").measured == "not measured"


def test_bars_without_bf16_dot_say_so() -> None:
    rows = [row("a", 1.0, dtype="bfloat16", sdpa=9.0)]
    found = bar(result_of(rows), "attention forward, S >= 577", "bfloat16")
    assert found.met is None
    assert found.measured == "not measurable: avx2 has no bf16 dot product"
    with_dot = bar(result_of(rows, "avx512_bf16", 1e11), "attention forward, S >= 577", "bfloat16")
    assert with_dot.met is False
    assert "avx512_bf16" in bar(result_of(rows, "avx512_bf16", 1e11), "on AVX2").measured


def test_shares_of_bf16_count_against_the_dot_product_also_where_there_are_tiles() -> None:
    one = row("a", 1.0, dtype="bfloat16", sdpa=9.0)
    one["contenders"]["ours"] |= {"flops_per_second": 9e10, "share": 0.09}
    one["ceiling"] = {"name": "bf16 tiles", "value": 1e12}
    found = bar(result_of([one], "amx_bf16", 1e11, 1e12), "attention forward, S >= 577", "bfloat16")
    assert (found.met, found.measured) == (True, "90% (a), 9% of tiles")


def test_bars_of_losses_tiles_threads_and_sizes() -> None:
    loss = {"loss": "info_nce", "B": 4096, "D": 512}
    masked = row("llama32v-cross-masked", 1.0, sdpa=4.5)
    masked["contenders"]["ours, all visible"] = contender("part", 1.9, ratio=1.9)
    masked["contenders"]["ours, none visible"] = contender("part", 0.01, ratio=0.01)
    rows = [
        row("clip-4k", 1.3, "contrastive", "forward+backward", shape=loss, three_products=1.0, open_clip=2.0),
        masked,
        row("long", 1.0, threads=1),
        row("long", 0.6, threads=2),
        {**row("s1", 1.0), "sweep": {"series": "attention", "axis": "S", "value": 128}},
        {**row("s2", 4.3), "sweep": {"series": "attention", "axis": "S", "value": 256}},
    ]
    big = {"loss": "info_nce", "B": 16384, "D": 512}
    rows.append(row("clip-16k", 1.3, "contrastive", "forward+backward", shape=big, three_products=1.0))
    rows[-1]["contenders"]["ours"]["memory_bytes"] = 100 * 2**20
    result = result_of(rows)
    assert bar(result, "InfoNCE / three products, B 4096", "float32, 1").met is True
    assert bar(result, "InfoNCE x the torch form", "float32, 1").met is False
    assert bar(result, "InfoNCE extra memory", "float32, 1").measured.startswith("100.00")
    assert bar(result, "tile visibility", "float32, 1").met is True
    assert bar(result, "half visible", "float32, 1").met is True
    assert bar(result, "none visible", "float32, 1").met is True
    assert bar(result, "2 threads", "float32").met is False
    assert bar(result, "S doubled").met is False
    text = "\n".join(bar_lines(result))
    assert "NOT MET" in text
    assert "instruction set avx2" in text


def test_a_wrong_result_misses_its_bar() -> None:
    result = result_of([row("a", 1.0, share=0.99, sdpa=9.0)])
    result["rows"][0]["contenders"]["ours"]["match"]["passed"] = False
    found = bar(result, "attention forward, S >= 577", "float32, 1")
    assert (found.met, found.measured) == (False, "wrong results: a")


def test_gradient_errors_are_compared_as_relative_norms() -> None:
    shape = {"loss": "info_nce", "B": 1024, "D": 512}
    one = row("clip-1k", 1.0, "contrastive", "forward+backward", "bfloat16", shape=shape, open_clip=2.0)
    one["contenders"]["ours"]["match"]["gradients"] = 0.002
    one["contenders"]["open_clip"]["match"] = {"passed": True, "share": 1.0, "worst": "", "relative": 0.1, "gradients": 0.1}  # fmt: skip
    found = bar(result_of([one]), "InfoNCE gradient error", "bfloat16, 1")
    assert (found.met, found.measured) == (True, "0.02 (clip-1k)")


# --- scaling ---


def test_doublings_are_of_neighbours_a_factor_of_two_apart() -> None:
    points = [(64, row("a", 1.0)), (128, row("b", 3.0)), (384, row("c", 9.0)), (768, row("d", 36.0))]
    assert doublings(points) == [(128, 3.0), (768, 4.0)]
    rows = [{**row("x", 1.0 / t, threads=t), "sweep": {"series": "x", "axis": "threads", "value": 0}} for t in (2, 1)]
    ((key, found),) = series_of(rows).items()
    assert key[1:] == ("threads", "forward", "float32", 0)
    assert [value for value, _ in found] == [1, 2]
    assert "2: 0.50" in scaling_lines(rows)[0]


# --- page and files ---


def test_the_page_is_whole_and_holds_every_command(result: dict[str, Any]) -> None:
    result = {**result, "machine": {**result["machine"], "processor": "A <fast> & one"}}
    page = render_page(result)
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "A &lt;fast&gt; &amp; one" in page
    for one in result["rows"]:
        assert one["command"] in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        minidom.parseString(svg)
    assert len(roofline_charts(result)) == len({(r["dtype"], r["threads"]) for r in result["rows"]})
    assert length_charts(result)
    for word in ("Roofline", "Ceilings", "torch product", "no bf16 dot" if not result["ceilings"]["1"]["bf16_dot"] else "bf16 dot"):  # fmt: skip
        assert word in page


def test_the_page_shows_missing_and_failing_peers() -> None:
    one = row("a", 1.0, sdpa=2.0)
    one["contenders"]["nested"] = {"kind": "peer", "missing": "there is <none>"}
    one["contenders"]["wrong"] = {"kind": "peer", "match": {"passed": False, "share": 7.0, "worst": "out"}}
    page = render_page(result_of([one]))
    assert "missing: nested (there is &lt;none&gt;)" in page
    assert '<span class="no">fails</span>' in page


def test_charts_of_memory_and_scaling() -> None:
    rows = []
    for batch in (512, 1024):
        one = row(f"b{batch}", 1e-3 * batch, "contrastive", "forward+backward", shape={"loss": "sigmoid", "B": batch, "D": 8}, open_clip=2.0)  # fmt: skip
        one["sweep"] = {"series": "sigmoid loss", "axis": "B", "value": batch}
        for found in one["contenders"].values():
            found["memory_bytes"] = batch * 2**20
        rows.append(one)
    (memory,) = memory_charts(result_of(rows))
    assert [s.label for s in memory.series] == ["ours", "open_clip"]
    (cost,) = scaling_charts(result_of(rows))
    assert cost.series[-1].label == "B^2"
    assert cost.series[-1].points[0][1] == pytest.approx(1e3 * 1.024 / 4)


def test_a_chart_without_points_is_nothing_and_ticks_are_round() -> None:
    assert Chart("t", "x", "y", []).to_html() == ""
    drawn = Chart("t", "x", "y", [Series("s", [(0.0, 3.0), (10.0, 47.0)])]).to_html()
    assert all(f">{tick}</text>" in drawn for tick in ("0", "10", "20", "40"))
    log = Chart("t", "x", "y", [Series("s", [(128.0, 2.0), (4096.0, 4.0)])], x_log=2, y_log=10).to_html()
    assert ">256</text>" in log


def test_files(tmp_path: Path, result: dict[str, Any]) -> None:
    write_json(result, tmp_path / "r.json")
    assert read_json(tmp_path / "r.json") == json.loads(json.dumps(result))
    write_csv(result, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(one["contenders"]) for one in result["rows"])
    assert float(lines[0]["median_s"]) > 0
    (tmp_path / "old.json").write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema 0"):
        read_json(tmp_path / "old.json")
    (tmp_path / "not.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_json(tmp_path / "not.json")


# --- README ---


def readme_table() -> Any:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_readme_is_that_of_the_newest_result() -> None:
    module = readme_table()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.with_table(readme, module.newest_result()) == readme, "run python benchmarks/readme_table.py"


def test_the_table_has_a_line_a_workload() -> None:
    module = readme_table()
    rows = [
        row("clip-b16", 1e-3, sdpa=2e-3),
        row("clip-b16", 6e-4, threads=2, sdpa=1.2e-3),
        row("vit-b16-224", 2e-3, "patch_embed", unfused=3e-3, linear=1.9e-3, shape={"B": 8}),
    ]
    text = module.with_table("a\n<!-- performance: begin -->\nold\n<!-- performance: end -->\nb\n", result_of(rows))
    assert "old" not in text
    assert text.startswith("a\n<!-- performance: begin -->\n")
    assert text.endswith("<!-- performance: end -->\nb\n")
    assert re.search(r"\| clip-b16 .*\| fp32 \| 1 \| 1 ms \| 50 % \| 2\.0 x sdpa", text)
    assert "A <fast> one" in text
