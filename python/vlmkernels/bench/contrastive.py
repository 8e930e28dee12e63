"""Contrastive losses, forward and backward, against the forms people train with and against the plain products they are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlmkernels.bench.attention import compiled
from vlmkernels.bench.shapes import Shape, load_shapes
from vlmkernels.bench.workload import Call, Prepared, Workload, grad_pass, seeded_generator
from vlmkernels.ops.contrastive import contrastive_loss
from vlmkernels.ops.sigmoid import sigmoid_loss
from vlmkernels.reference import contrastive as reference

__all__ = ["contrastive_workload", "contrastive_workloads", "loss_flops"]

PEERS = ("open_clip", "huggingface", "chunked", "checkpointed", "compile", "three products")
FORMULA = "FLOP = 6 B^2 D (three products: logits and both gradients; 2 B^2 D forward only); bytes = features and their gradients once"
_SCALE, _BIAS, _CHUNK = 20.0, -10.0, 1024


def loss_flops(shape: Shape, run_pass: str) -> float:
    return (2.0 if run_pass == "forward" else 6.0) * shape["B"] ** 2 * shape["D"]


def _prepare(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
    g = seeded_generator()
    batch, width, sigmoid = shape["B"], shape["D"], shape["loss"] == "sigmoid"
    shared = torch.randn(batch, width, generator=g)
    backward = run_pass != "forward"
    # Pairs that look alike, as trained features do.
    image, text = (
        F.normalize(shared + torch.randn(batch, width, generator=g), dim=1).to(dtype).requires_grad_(backward)
        for _ in range(2)
    )
    scale = torch.tensor(_SCALE, requires_grad=backward)
    bias = torch.tensor(_BIAS, requires_grad=backward)
    leaves = [image, text, scale, *((bias,) if sigmoid else ())]

    def ours() -> Tensor:
        return sigmoid_loss(image, text, scale, bias) if sigmoid else contrastive_loss(image, text, scale)  # type: ignore[no-any-return]

    def measured(compute: Callable[[], Tensor]) -> Call:
        return grad_pass(lambda: (compute(),), leaves, [image.new_ones((), dtype=torch.float32)], run_pass)

    forms = _Sigmoid(image, text, scale, bias) if sigmoid else _InfoNce(image, text, scale)
    gradients = ("grad image", "grad text", "grad logit_scale", *(("grad logit_bias",) if sigmoid else ()))
    return Prepared(
        ours=lambda: measured(ours),
        peers={
            "open_clip": lambda: measured(_wide(forms.open_clip)),
            "huggingface": lambda: measured(_wide(forms.huggingface)),
            "chunked": lambda: measured(_wide(forms.chunked)),
            "checkpointed": lambda: measured(_wide(lambda: forms.chunked(recompute=True))),
            "compile": lambda: measured(compiled(_wide(forms.open_clip))),
        },
        exact=lambda: _exact(image, text, sigmoid, run_pass),
        outputs=("loss",) if run_pass == "forward" else ("loss", *gradients),
        yardstick="open_clip",
        flops=loss_flops(shape, run_pass),
        bytes=float((2 if run_pass == "forward" else 4) * batch * width * dtype.itemsize),
        formula=FORMULA,
        parts={"three products": lambda: _three_products(image.detach(), text.detach(), run_pass)},
        part_flops=loss_flops(shape, run_pass),
        items=batch,
    )


def _wide(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The loss in fp32, whatever dtype a form computes it in."""
    return lambda: loss().float()


def _three_products(image: Tensor, text: Tensor, run_pass: str) -> Call:
    """The products any loss of this kind needs, with nothing around them: the logits, and a matrix of that size times each of the features."""

    @torch.no_grad()
    def call() -> tuple[Tensor, ...]:
        z = image @ text.mT
        return (z,) if run_pass == "forward" else (z @ text, z.mT @ image)

    return call


class _InfoNce:
    def __init__(self, image: Tensor, text: Tensor, scale: Tensor) -> None:
        self.image, self.text, self.scale = image, text, scale
        self.labels = torch.arange(image.shape[0], device=image.device)

    def open_clip(self) -> Tensor:
        """Two products, one a direction."""
        per_image = self.scale.to(self.image.dtype) * self.image @ self.text.mT
        per_text = self.scale.to(self.image.dtype) * self.text @ self.image.mT
        return (F.cross_entropy(per_image, self.labels) + F.cross_entropy(per_text, self.labels)) / 2

    def huggingface(self) -> Tensor:
        """One product and its transpose."""
        per_text = (self.text @ self.image.mT) * self.scale.to(self.image.dtype)
        return (F.cross_entropy(per_text, self.labels) + F.cross_entropy(per_text.mT, self.labels)) / 2

    def chunked(self, recompute: bool = False) -> Tensor:
        """Blocks of rows, then blocks of columns; their logits are kept for the backward pass, or computed again."""

        def block(rows: Tensor, others: Tensor, labels: Tensor) -> Tensor:
            logits = self.scale.to(rows.dtype) * rows @ others.mT
            return F.cross_entropy(logits, labels, reduction="sum").float()

        parts = [
            checkpoint(block, rows, others, labels, use_reentrant=False) if recompute else block(rows, others, labels)
            for mine, others in ((self.image, self.text), (self.text, self.image))
            for rows, labels in zip(mine.split(_CHUNK), self.labels.split(_CHUNK), strict=True)
        ]
        return torch.stack(parts).sum() / (2 * len(self.labels))


class _Sigmoid:
    def __init__(self, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> None:
        self.image, self.text, self.scale, self.bias = image, text, scale, bias

    def _block(self, image: Tensor, first: int) -> Tensor:
        dtype = image.dtype
        logits = self.scale.to(dtype) * image @ self.text.mT + self.bias.to(dtype)
        signs = -torch.ones_like(logits)
        signs.diagonal(first).fill_(1)
        return -F.logsigmoid(signs * logits).sum() / self.image.shape[0]

    def open_clip(self) -> Tensor:
        return self._block(self.image, 0)

    def huggingface(self) -> Tensor:
        """Text first, the labels from an identity matrix, sums of rows."""
        dtype = self.image.dtype
        logits = (self.text @ self.image.mT) * self.scale.to(dtype) + self.bias.to(dtype)
        eye = torch.eye(logits.shape[0], dtype=dtype, device=logits.device)
        return -F.logsigmoid((2 * eye - 1) * logits).sum(-1).mean()

    def chunked(self, recompute: bool = False) -> Tensor:
        """Blocks of rows; their logits are kept for the backward pass, or computed again."""
        parts = []
        for first, rows in zip(range(0, self.image.shape[0], _CHUNK), self.image.split(_CHUNK), strict=True):
            part = checkpoint(self._block, rows, first, use_reentrant=False) if recompute else self._block(rows, first)
            parts.append(part.float())
        return torch.stack(parts).sum()


def _exact(image: Tensor, text: Tensor, sigmoid: bool, run_pass: str) -> tuple[Tensor, ...]:
    """float64, in blocks of rows: first the logsumexp of rows and columns (InfoNCE), then the loss and the gradients."""
    with torch.no_grad():
        x, y = image.detach().double(), text.detach().double()
        count = x.shape[0]
        scale = torch.tensor(_SCALE, dtype=torch.float64)
        blocks = [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        rows, columns = x.new_empty(count), x.new_full((count,), -torch.inf)
        if not sigmoid:
            for block in blocks:
                z = reference.logits(x[block], y, scale)
                rows[block] = z.logsumexp(1)
                columns = torch.logaddexp(columns, z.logsumexp(0))
        loss, dbias, dscale = x.new_zeros(()), x.new_zeros(()), x.new_zeros(())
        dx, dy = torch.zeros_like(x), torch.zeros_like(y)
        for block in blocks:
            z = reference.logits(x[block], y, scale, _BIAS if sigmoid else 0.0)
            positive = reference.positive_pairs(len(z), count, label_offset=block.start)
            if sigmoid:
                loss += reference.sigmoid_row_losses(z, positive).sum() / count
            else:
                target = z[positive]
                loss += ((rows[block] - target).sum() + (columns[block] - target).sum()) / (2 * count)
            if run_pass == "forward":
                continue
            if sigmoid:
                g = (z.sigmoid() - positive.double()) / count
            else:
                g = (torch.exp(z - rows[block, None]) + torch.exp(z - columns) - 2 * positive.double()) / (2 * count)
            part = reference.feature_gradients(g, x[block], y, scale, False)
            dx[block] = part[0]
            dy += part[1]
            dscale += part[2]
            dbias += g.sum()
        if run_pass == "forward":
            return (loss,)
        return (loss, dx, dy, dscale, *((dbias,) if sigmoid else ()))


def contrastive_workload(shape: Shape) -> Workload:
    return Workload(
        name=shape["name"],
        operation="contrastive",
        shape=shape,
        prepare=_prepare,
        passes=("forward", "forward+backward"),
        flops=loss_flops,
        memory=True,
        peers=PEERS,
        default_peers=("open_clip", "three products"),
        dtypes=(torch.float32, torch.bfloat16),
        kernels="sigmoid" if shape["loss"] == "sigmoid" else "",
    )


def contrastive_workloads(gpu: bool = False) -> list[Workload]:
    """Those for a `gpu` are more: some are too large for a CPU."""
    return [contrastive_workload(s) for s in load_shapes()["contrastive"] if gpu or s.get("only") != "cuda"]
