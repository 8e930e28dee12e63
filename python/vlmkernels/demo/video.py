"""Short clips of drawings in motion, classified by their motion through tubelet embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.demo import pictures, report
from vlmkernels.demo.augment import transform
from vlmkernels.demo.clip import Collection, load_collection
from vlmkernels.demo.result import CREDIT, Result, history_facts
from vlmkernels.demo.training import fit
from vlmkernels.models.vit import VisionTransformer, VisionTransformerConfig

__all__ = ["MOTIONS", "moving_clips", "run_video"]

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "turn left", "turn right")
FRAMES, SIZE = 8, 32


def moving_clips(images: Tensor, motions: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (B, 3, H, W) and motion indices (B,) -> clips (B, FRAMES, 3, H, W): each drawing starts at a random place and moves at a random speed."""
    n = len(images)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, generator=generator) * (high - low) + low

    time = torch.linspace(-0.5, 0.5, FRAMES).expand(n, -1)
    travel, start_x, start_y = draw(0.5, 1.0), draw(-0.2, 0.2), draw(-0.2, 0.2)
    # affine_grid maps places of the output to places of the input, so contents move the other way.
    direction = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}
    x_way = torch.tensor([float(direction.get(m, (0, 0))[0]) for m in MOTIONS])[motions][:, None]
    y_way = torch.tensor([float(direction.get(m, (0, 0))[1]) for m in MOTIONS])[motions][:, None]
    growth = torch.tensor([{"grow": -1.0, "shrink": 1.0}.get(m, 0.0) for m in MOTIONS])[motions][:, None]
    turn = torch.tensor([{"turn left": -1.0, "turn right": 1.0}.get(m, 0.0) for m in MOTIONS])[motions][:, None]
    x, y = start_x + x_way * travel * time, start_y + y_way * travel * time
    zoom = torch.exp(growth * travel * time) * draw(1.1, 1.6)
    angle = -turn * travel * time * 1.5
    rows = [
        torch.stack([angle.cos() * zoom, -angle.sin() * zoom, x], -1),
        torch.stack([angle.sin() * zoom, angle.cos() * zoom, y], -1),
    ]
    matrix = torch.stack(rows, 2).flatten(0, 1)
    frames = transform(images.repeat_interleave(FRAMES, 0), matrix)
    return frames.clamp(0, 255).to(torch.uint8).unflatten(0, (n, FRAMES))


def _batch(collection: Collection, among: list[int], size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    taken = torch.tensor(among)[torch.randint(len(among), (size,), generator=generator)]
    motions = torch.randint(len(MOTIONS), (size,), generator=generator)
    return moving_clips(collection.images[taken], motions, generator), motions


def run_video(out: Path, seed: int, steps: int | None = None) -> Result:
    """Trains on clips of training drawings, tests on clips of held-out ones."""
    collection = load_collection(SIZE)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = VisionTransformerConfig(
        image_size=SIZE, patch_size=8, width=64, depth=3, heads=4, classes=len(MOTIONS), frames=FRAMES, tubelet_size=2
    )
    model = VisionTransformer(config)
    batch = 64

    def loss() -> Tensor:
        clips, motions = _batch(collection, collection.split.train, batch, generator)
        return F.cross_entropy(model(clips), motions)

    history = fit(model, loss, steps=steps or 500, batch=batch, learning_rate=2e-3, label="training video ViT")
    clips, motions = _batch(collection, collection.split.held_out, 400, torch.Generator().manual_seed(1))
    with torch.no_grad():
        guesses = torch.cat([model(part).argmax(1) for part in clips.split(100)])
    accuracy = (guesses == motions).double().mean().item() * 100
    result = Result(
        numbers={"held-out accuracy": accuracy, "clips per second": history.rate, "seconds": history.seconds}
    )
    facts = [
        (
            "held-out accuracy",
            f"{accuracy:.1f} % of 400 clips of held-out drawings (chance {100 / len(MOTIONS):.1f} %)",
        ),
        *history_facts(history, "clips"),
    ]
    result.lines = [f"{name}: {value}" for name, value in facts]
    rows = []
    for motion in range(len(MOTIONS)):
        n = int((motions == motion).nonzero()[0])
        guess = MOTIONS[int(guesses[n])]
        frames = [(np.ascontiguousarray(frame), "", None) for frame in clips[n].numpy()]
        rows.append((f"{MOTIONS[motion]}\n(seen as {guess})", frames))
    shown = [
        ("Clips", "One held-out clip of each motion, frame by frame.", pictures.image_grid(rows, out / "clips.png")),
        (
            "Loss",
            "Cross entropy over the training steps.",
            pictures.loss_curve(history.losses, out / "loss.png", "cross entropy"),
        ),
    ]
    result.files = [file for _, _, file in shown]
    result.files.append(report.write_report(out / "report.html", "Motion in short clips", facts, shown, CREDIT))
    return result
