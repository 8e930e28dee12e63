"""What the workloads compute: results that match float64 for ours and every peer, and the formulas."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tiny_workloads import QUICK, QUICK_CEILINGS, SHAPES, tiny

from vlmkernels.bench import attention as attention_module
from vlmkernels.bench.attention import attention_flops, visible_pairs
from vlmkernels.bench.catalog import OPERATIONS, all_workloads, select
from vlmkernels.bench.ceilings import measure_ceilings
from vlmkernels.bench.contrastive import loss_flops
from vlmkernels.bench.memory import MemoryServer
from vlmkernels.bench.models import model_workload, tower_flops
from vlmkernels.bench.packed import packed_flops
from vlmkernels.bench.patch_embed import patch_flops
from vlmkernels.bench.run import Plan, run_workload
from vlmkernels.bench.scaling import sweep_workloads
from vlmkernels.bench.shapes import load_shapes, sequence_lengths
from vlmkernels.bench.suite import run_suite
from vlmkernels.bench.workload import Prepared, Workload


def run_one(workload: Workload, **options: Any) -> list[dict[str, Any]]:
    plan = Plan(dtypes=(torch.float32,), threads=(1,), memory="none", timing=QUICK, **options)
    return run_suite([(workload, plan)], "", lambda line: None, QUICK_CEILINGS)["rows"]


@pytest.mark.parametrize("name", SHAPES)
def test_every_peer_computes_the_same(name: str) -> None:
    workload = tiny(name)
    peers = tuple(peer for peer in workload.peers if peer != "compile")
    for row in run_one(workload, passes=("all",), peers=peers):
        assert set(row["contenders"]) >= {"ours", workload.default_peers[0]}
        for contender, found in row["contenders"].items():
            if "missing" in found:
                assert len(found["missing"]) > 10, contender
                continue
            assert found["kind"] == "part" or found["match"]["passed"], (row["pass"], contender, found)
            assert found["times"]["median"] > 0


def test_ours_matches_in_every_dtype(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        ours = row["contenders"]["ours"]
        assert ours["match"]["passed"], (row["workload"], row["pass"], row["dtype"], ours)


def test_the_result_is_json_with_the_fields_readers_use(result: dict[str, Any]) -> None:
    again = json.loads(json.dumps(result))
    assert again["schema"] == 1
    assert set(again["ceilings"]) == {"1", "2"}
    assert {(r["workload"], r["pass"], r["dtype"], r["threads"]) for r in again["rows"]}.__len__() == len(again["rows"])
    for row in again["rows"]:
        assert row["formula"].startswith("FLOP = ")
        assert row["command"].startswith("vlmkernels bench ")
        times = row["contenders"]["ours"]["times"]
        assert times["best"] <= times["q1"] <= times["median"] <= times["q3"]
        assert times["samples"] >= 2
        if row["bound"] == "compute":
            found = row["contenders"]["ours"]
            assert found["flops_per_second"] == pytest.approx(row["flops"] / times["median"])
            assert found["share"] == pytest.approx(found["flops_per_second"] / row["ceiling"]["value"])
        else:
            assert row["ceiling"]["name"] == "read"


def test_named_shapes_and_formulas() -> None:
    shapes = {(operation, s["name"]): s for operation, found in load_shapes().items() for s in found}
    clip = shapes["attention", "clip-b16"]
    assert attention_flops(clip, "forward") == 4 * 8 * 12 * 197 * 197 * 64
    assert attention_flops(clip, "backward") == 10 * 8 * 12 * 197 * 197 * 64
    assert visible_pairs(shapes["attention", "clip-text"]) == 77 * 78 // 2
    masked = shapes["attention", "llama32v-cross-masked"]
    assert visible_pairs(masked) == 341 * 2 * 1601 + 342 * 4 * 1601
    assert visible_pairs(shapes["attention", "mllama-vision"]) == 6432**2 - 32**2
    assert len(sequence_lengths(shapes["attention", "naflex-packed"])) == 16
    assert sequence_lengths(shapes["attention", "qwen25vl-window-ragged"])[:3] == [16, 20, 24]
    assert packed_flops(shapes["attention", "qwen25vl-window"], "forward") == 4 * 16 * 80 * 64 * 64 * 64
    assert patch_flops(shapes["patch_embed", "vit-b16-224"], "forward") == 2 * 8 * 196 * 768 * 768
    assert patch_flops(shapes["patch_embed", "videomae-b"], "backward") == 2 * 8 * 196 * 1536 * 768
    assert loss_flops(shapes["contrastive", "clip-1k"], "forward+backward") == 6 * 1024**2 * 512
    assert tower_flops(shapes["model", "clip-b16-vision"]) / 8 == pytest.approx(35.1e9, rel=0.02)


@pytest.mark.parametrize("name", ["causal", "tiles", "padding"])
def test_flops_count_the_pairs_that_the_mask_leaves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[torch.Tensor] = []
    monkeypatch.setattr(attention_module, "_exact", lambda *args: masks.append(args[5]))
    workload = tiny(name)
    workload.prepare(workload.shape, torch.float32, "forward").exact()
    assert int(masks[0].sum()) == visible_pairs(workload.shape)


def test_names_are_unique_within_an_operation_and_selectable() -> None:
    everything = all_workloads()
    assert {w.operation for w in everything} == set(OPERATIONS)
    keys = [(w.operation, w.name) for w in [*everything, *sweep_workloads()]]
    assert len(keys) == len(set(keys))
    assert all(w.operation != "model" for w in select([], None))
    assert {w.operation for w in select(["siglip-so400m-384"], None)} == {"attention", "patch_embed"}
    assert select(["sweep-attention-s256"], None)[0].sweep == {"series": "attention, 1 x 8 heads x 64", "axis": "S", "value": 256}  # fmt: skip
    with pytest.raises(ValueError, match="no workload is called nothing"):
        select(["nothing"], None)


def test_a_batch_is_scaled_down_only_where_a_call_takes_long() -> None:
    workload = next(w for w in all_workloads() if w.name == "clip-b16")
    shape, note = workload.scaled(1e15, 1.0, "forward")
    assert (shape["B"], note) == (8, "")
    shape, note = workload.scaled(workload.flops(workload.shape, "forward") / 4, 1.0, "forward")
    assert (shape["B"], note) == (2, "batch 8 scaled down to 2")
    loss = next(w for w in all_workloads() if w.name == "clip-16k")
    assert loss.scaled(1.0, 1.0, "forward+backward") == (loss.shape, "")


def test_a_wrong_result_shows_no_speed() -> None:
    workload = tiny("self")
    right = workload.prepare

    def prepare(shape: dict[str, Any], dtype: torch.dtype, run_pass: str) -> Prepared:
        prepared = right(shape, dtype, run_pass)
        make = prepared.ours
        prepared.ours = lambda: lambda: tuple(t * 1.01 for t in make()())
        return prepared

    object.__setattr__(workload, "prepare", prepare)
    (row,) = run_one(workload)
    assert not row["contenders"]["ours"]["match"]["passed"]
    assert "times" not in row["contenders"]["ours"]
    assert "ratio" not in row["contenders"]["sdpa"]


def test_missing_peers_are_named() -> None:
    (row,) = run_one(tiny("windows"), peers=("split", "batched"))
    assert "different lengths" in row["contenders"]["batched"]["missing"]
    (row,) = run_one(tiny("self"), peers=("sdpa", "sdpa-efficient", "onednn"))
    assert "no efficient attention" in row["contenders"]["sdpa-efficient"]["missing"]
    assert "oneDNN" in row["contenders"]["onednn"]["missing"]


TOWERS = {
    "clip": {"name": "c", "family": "clip", "B": 2, "image": 32, "patch": 16, "width": 32, "depth": 2, "heads": 2, "hidden": 64},
    "siglip": {"name": "s", "family": "siglip", "B": 1, "image": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2, "hidden": 64},
}  # fmt: skip


@pytest.mark.parametrize("family", TOWERS)
def test_towers_with_our_kernels_compute_the_same(family: str) -> None:
    pytest.importorskip("transformers")
    (row,) = run_one(model_workload(TOWERS[family]), peers=("transformers",))
    assert row["contenders"]["ours"]["match"]["passed"]
    assert row["contenders"]["transformers"]["items_per_second"] > 0


def test_a_tower_without_transformers_is_named_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "transformers" else find(name, *a))  # fmt: skip
    (row,) = run_one(model_workload(TOWERS["clip"]))
    assert row["contenders"] == {"ours": {"kind": "ours", "missing": "transformers is not installed"}}


def test_memory_is_that_of_the_call_alone() -> None:
    """A matrix of logits of 2048 x 2048 floats is 16 MiB; the torch form holds several, ours none."""
    name, make = "info_nce", SHAPES["info_nce"][0]
    workload = make({"name": "clip-1k", "loss": name, "B": 2048, "D": 16})
    with MemoryServer() as server:
        sizes = {
            contender: server.ask(workload, workload.shape, "float32", 1, "forward+backward", contender)["bytes"]
            for contender in ("ours", "open_clip")
        }
        answer = server.ask(workload, workload.shape, "float32", 1, "forward+backward", "nobody")
    assert sizes["open_clip"] > 32 * 2**20
    assert sizes["ours"] < 12 * 2**20
    assert "error" in answer


def test_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    plan = Plan(dtypes=(torch.float32,), threads=(1, 2), memory="none", timing=QUICK)
    ceilings = {t: measure_ceilings(t, QUICK_CEILINGS) for t in (1, 2)}
    with MemoryServer() as memory:
        rows = list(run_workload(tiny("self"), plan, ceilings, memory))
    assert [row["threads"] for row in rows] == [1, 2]
    assert torch.get_num_threads() == before
