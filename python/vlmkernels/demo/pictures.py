"""The pictures of the reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["attention_map", "image_grid", "loss_curve", "similarity_matrix"]


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axis: Any, image: np.ndarray, title: str = "", right: bool | None = None) -> None:
    """A (3, H, W) image without ticks; a green or grey frame where it is right or wrong."""
    axis.imshow(image.transpose(1, 2, 0))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=8, wrap=True)
    for side in axis.spines.values():
        side.set(color="#2a9d4e" if right else "#cccccc", linewidth=3 if right else 0.8)


def loss_curve(losses: Sequence[float], path: Path, name: str = "loss") -> Path:
    figure, axes = _figure(6.4, 3.6)
    axis = axes[0, 0]
    window = max(len(losses) // 40, 1)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axis.plot(losses, color="#c9d6e8", linewidth=1, label="each step")
    axis.plot(
        np.arange(len(smooth)) + (window - 1) / 2, smooth, color="#1f5fa8", linewidth=2, label=f"mean of {window}"
    )
    axis.set(xlabel="step", ylabel=name)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path)
    return path


def image_grid(rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, str, bool | None]]]], path: Path) -> Path:
    """One line per query: its text, then (image, caption, right) cells."""
    columns = max(len(cells) for _, cells in rows)
    figure, axes = _figure(1.5 * (columns + 1.2), 1.65 * len(rows), len(rows), columns + 1)
    for (text, cells), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        line[0].text(0.5, 0.5, text, ha="center", va="center", wrap=True, fontsize=10)
        for axis, (image, caption, right) in zip(line[1:], cells, strict=False):
            axis.axis("on")
            _show(axis, image, caption, right)
    figure.savefig(path)
    return path


def similarity_matrix(similarity: np.ndarray, path: Path) -> Path:
    """Cosine of every held-out text (rows) with every held-out image (columns); the true pairs are the diagonal."""
    figure, axes = _figure(6.4, 5.6)
    shown = axes[0, 0].imshow(similarity, cmap="magma")
    axes[0, 0].set(xlabel="held-out image", ylabel="held-out caption")
    figure.colorbar(shown, ax=axes[0, 0], label="cosine")
    figure.savefig(path)
    return path


def attention_map(rows: Sequence[tuple[np.ndarray, Sequence[tuple[str, np.ndarray]]]], path: Path) -> Path:
    """Images with maps over them: each row an image (3, H, W) and (title, weights (h, w)) pairs."""
    columns = 1 + max(len(maps) for _, maps in rows)
    figure, axes = _figure(1.7 * columns, 1.9 * len(rows), len(rows), columns)
    for (image, maps), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        line[0].axis("on")
        _show(line[0], image)
        height, width = image.shape[1:]
        for axis, (title, weights) in zip(line[1:], maps, strict=False):
            axis.axis("on")
            _show(axis, (255 - (255 - image) * 0.35).astype(np.uint8), title)
            axis.imshow(
                weights,
                cmap="inferno",
                alpha=0.6,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                interpolation="bilinear",
            )
    figure.savefig(path)
    return path
