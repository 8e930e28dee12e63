"""A Vision Transformer that reads scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vlmkernels.demo import pictures, report
from vlmkernels.demo.result import Result, history_facts
from vlmkernels.demo.training import fit
from vlmkernels.models.vit import VisionTransformer, VisionTransformerConfig

__all__ = ["run_digits"]


def run_digits(out: Path, seed: int, steps: int | None = None) -> Result:
    """Trains on three quarters of the 1,797 digits of 8 x 8 pixels, tests on the rest."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels = torch.from_numpy((data.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(data.target)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, random_state=0, stratify=data.target)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = VisionTransformerConfig(
        image_size=8, patch_size=2, channels=1, width=64, depth=3, heads=4, classes=10, mean=(0.5,), std=(0.5,)
    )
    model = VisionTransformer(config)
    batch = 128

    def loss() -> torch.Tensor:
        taken = torch.from_numpy(train)[torch.randint(len(train), (batch,), generator=generator)]
        return F.cross_entropy(model(pixels[taken]), labels[taken], label_smoothing=0.05)

    history = fit(model, loss, steps=steps or 300, batch=batch, learning_rate=2e-3, label="training ViT")
    with torch.no_grad():
        guesses = model(pixels[test]).argmax(1)
    accuracy = (guesses == labels[test]).double().mean().item() * 100
    result = Result(numbers={"test accuracy": accuracy, "images per second": history.rate, "seconds": history.seconds})
    facts = [("test accuracy", f"{accuracy:.1f} % of {len(test)} digits (chance 10 %)"), *history_facts(history)]
    result.lines = [f"{name}: {value}" for name, value in facts]

    wrong = [n for n, right in enumerate((guesses == labels[test]).tolist()) if not right]
    order = (wrong + [n for n in range(len(test)) if n not in set(wrong)])[:24]
    cells = [
        (
            pixels[test[n]].expand(3, -1, -1).numpy(),
            f"{labels[test[n]]} read as {guesses[n]}",
            bool(guesses[n] == labels[test[n]]),
        )
        for n in order
    ]
    rows = [("test digits", cells[i : i + 8]) for i in range(0, 24, 8)]
    shown = [
        (
            "Test digits",
            "Wrong readings first, then right ones in green.",
            pictures.image_grid(rows, out / "digits.png"),
        ),
        (
            "Loss",
            "Cross entropy over the training steps.",
            pictures.loss_curve(history.losses, out / "loss.png", "cross entropy"),
        ),
    ]
    result.files = [file for _, _, file in shown]
    result.files.append(
        report.write_report(
            out / "report.html",
            "A Vision Transformer on handwritten digits",
            facts,
            shown,
            "Digits: scikit-learn's load_digits.",
        )
    )
    return result
