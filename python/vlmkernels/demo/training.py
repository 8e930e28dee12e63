"""The training loop of all tasks: AdamW, warm-up and cosine decay, a progress bar, and where the time went."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["History", "fit"]

#: Profiler events by what they belong to; the first name contained in the event wins.
_SHARES = {
    "attention": ("_Attention", "vlmkernels::attention"),
    "patch_embed": ("_PatchEmbed", "vlmkernels::patch_embed"),
    "contrastive_loss": ("_Contrastive", "vlmkernels::contrastive", "_Sigmoid"),
    "linear layers": ("addmm", "aten::mm", "aten::bmm", "aten::linear"),
    "norms and activations": ("norm", "gelu", "silu", "softmax"),
}
_PROFILED_STEPS = range(5, 8)


@dataclass
class History:
    """Loss of every step, seconds and items trained on, and the share of time per operator (measured over three steps)."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    items: int = 0
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Items per second."""
        return self.items / max(self.seconds, 1e-9)


def fit(
    model: nn.Module,
    loss_of_batch: Callable[[], Tensor],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    weight_decay: float = 0.1,
    warmup: int = 50,
    after_step: Callable[[], None] | None = None,
    label: str = "training",
) -> History:
    """Minimises ``loss_of_batch()``; matrices decay, vectors do not; gradients are clipped to norm 1."""
    from tqdm import tqdm

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # Models this small have many parameters of few numbers: one call for all of them costs a quarter of a loop over them.
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    warmup = min(warmup, max(steps // 4, 1))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1.0, (n + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * n / steps)) + 0.01
    )
    history = History()
    model.train()
    started = time.perf_counter()
    profiler = None
    with tqdm(total=steps, desc=label, unit="step", leave=True) as bar:
        for step in range(steps):
            if step == _PROFILED_STEPS.start:
                profiler = torch.autograd.profiler.profile(use_kineto=False).__enter__()
            loss = loss_of_batch()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if after_step is not None:
                after_step()
            if profiler is not None and step == _PROFILED_STEPS.stop - 1:
                profiler.__exit__(None, None, None)
                history.shares = _shares(profiler)
                profiler = None
            history.losses.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    if profiler is not None:
        profiler.__exit__(None, None, None)
    history.seconds = time.perf_counter() - started
    history.items = steps * batch
    model.eval()
    return history


def _shares(profiler: torch.autograd.profiler.profile) -> dict[str, float]:
    """Share of the time spent inside each kind of event, without what is nested in it."""
    spent = dict.fromkeys([*_SHARES, "the rest"], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, names in _SHARES.items() if any(n in event.key for n in names)), "the rest")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values()) or 1.0
    return {kind: value / total for kind, value in spent.items()}
