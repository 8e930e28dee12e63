"""The static report as text."""

from __future__ import annotations

from typing import Any

__all__ = ["missing_lines", "static_lines"]

Row = dict[str, Any]


def static_lines(row: Row) -> list[str]:
    """A row: its ratios, where GPUs have different plans once for each plan, and a line a kernel."""
    shape = ", ".join(f"{key} {value}" for key, value in row["shape"].items())
    lines = [f"{row['workload']}  {row['operation']} {row['pass']}, {row['dtype']}  ({shape})"]
    for plan in row["plans"]:
        only = f" on {', '.join(plan['gpus'])}" if len(row["plans"]) > 1 else ""
        lines.append(f"  mma / minimum {plan['mma_over_minimum']:.2f}{only}{_flash2(row, plan['gpus'])}")
        lines.append(
            f"  PTX other / mma {plan['other_per_mma']:.2f} (without addresses and moves {plan['work_per_mma']:.2f}), sectors / ideal {plan['sectors_over_ideal']:.2f}, "
            f"bank conflicts {plan['bank_conflicts']:.1%}, bytes / tensors {plan['bytes_over_tensors']:.2f}"
        )
        for kernel in plan["kernels"]:
            lines += _kernel(kernel)
    return lines


def _flash2(row: Row, gpus: list[str]) -> str:
    """What FlashAttention-2's rule gives, once for each tile."""
    by_tile: dict[str, list[str]] = {}
    for name in gpus:
        if found := row["flash2"].get(name):
            tile = f"{found['mma_over_minimum']:.2f} (tile {found['queries']} x {found['keys']}, head_dim {found['head_dim']})"
            by_tile.setdefault(tile, []).append(name)
    if not by_tile:
        return ""
    several = len(by_tile) > 1
    return ", FlashAttention-2 " + ", ".join(
        tile + (f" on {', '.join(names)}" if several else "") for tile, names in by_tile.items()
    )


def _kernel(kernel: Row) -> list[str]:
    times = f", {kernel['launches']} launches" if kernel["launches"] > 1 else ""
    head = f"    {kernel['kernel']:<46} {kernel['grid']:>6} x {kernel['threads']} threads, {kernel['shared_bytes'] / 1024:5.1f} KB{times}"
    if kernel["executed_blocks"] < kernel["grid"]:
        head += f", {kernel['executed_blocks']} blocks executed"
    fills = [
        f"{name} {found['blocks']}, {found['waves']:.2f} ({found['registers']} regs{', spills' if found['spill_bytes'] else ''})"
        for name, found in kernel["occupancy"].items()
    ]
    return [
        head,
        f"      blocks an SM, waves: {'  '.join(fills)}" if fills else "      no registers known of this build",
    ]


def missing_lines(result: Row) -> list[str]:
    return [f"not in the report: {name} ({why})" for name, why in result["missing"].items()]
