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
