"""Operators on the emulator backend: how launches run, and what is told about them."""

from __future__ import annotations

import pytest
import torch

import vlmkernels as vk
from vlmkernels import backends, images

WHY_NOT = backends.native_error if backends.native is None else images.missing("merge_attention")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "kernels are there")


def merge() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(5, 2, 40, 24, generator=generator).bfloat16()
    with backends.use_backend("emulator"):
        return vk.merge_attention(outputs, torch.randn(5, 2, 40, generator=generator))


def test_launches_are_listed() -> None:
    with backends.emulation(counters=True) as launches:
        merge()
    (launch,) = launches
    assert launch.plan["kernel"] == "merge_forward_bfloat16_8x16"
    assert launch.report["completed"]
    assert launch.report["findings"] == []
    assert launch.report["counters"]["blocks"] == launch.plan["grid"][0]
    assert launch.report["summary"]
    merge()
    assert len(launches) == 1, "nothing is listed after the block"


def test_schedules_do_not_change_the_bits() -> None:
    expected = merge()
    for seed in range(3):
        with backends.emulation(schedule="random", seed=seed):
            assert all(torch.equal(a, b) for a, b in zip(merge(), expected, strict=True))
    with backends.emulation(checks=False):
        assert all(torch.equal(a, b) for a, b in zip(merge(), expected, strict=True))
    with pytest.raises(ValueError, match="schedule"), backends.emulation(schedule="shuffled"):
        pass


def test_memory_is_read_in_whole_sectors() -> None:
    """Eight lanes of 16 bytes a row: no sector is touched in part, none twice."""
    outputs, lses = torch.randn(4, 64, 64).bfloat16(), torch.randn(4, 64)
    with backends.use_backend("emulator"), backends.emulation(counters=True) as launches:
        vk.merge_attention(outputs, lses)
    traffic = launches[0].report["counters"]
    assert traffic["global_store"]["sectors"] == traffic["global_store"]["ideal_sectors"]


def test_chosen_blocks_run_alone() -> None:
    """Of 80 rows in blocks of 16, those of the second and the last; or none, for the plan alone."""
    expected = merge()[0].flatten(0, 1)
    plans = []

    def choose(plan: dict[str, object]) -> list[int]:
        plans.append(plan)
        return [1, 4]

    with backends.emulation(counters=True, blocks=choose) as launches:
        found = merge()[0].flatten(0, 1)
    assert torch.equal(found[16:32], expected[16:32])
    assert torch.equal(found[64:], expected[64:])
    assert launches[0].report["counters"]["blocks"] == 2
    assert plans == [launches[0].plan]
    with backends.emulation(counters=True, blocks=lambda plan: []) as launches:
        merge()
    assert launches[0].report["counters"]["blocks"] == 0
    with backends.emulation(blocks=lambda plan: None):
        assert torch.equal(merge()[0].flatten(0, 1), expected)
    with backends.emulation(blocks=lambda plan: [5]), pytest.raises(ValueError, match="block 5 of a grid of 5"):
        merge()
