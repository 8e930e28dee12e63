"""Contrastive losses in plain PyTorch: the whole matrix of logits, the formulas of the papers.

    z_ij = logit_scale <image_i, text_j> (+ logit_bias)

Symmetric InfoNCE: Radford et al., "Learning transferable visual models from natural language supervision" (2021). Sigmoid loss: Zhai et al., "Sigmoid loss for
language image pre-training" (2023). Arithmetic is at least fp32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "contrastive_backward",
    "contrastive_loss",
    "contrastive_statistics",
    "logits",
    "positive_pairs",
    "sigmoid_backward",
    "sigmoid_loss",
    "sigmoid_row_losses",
    "unit_rows",
]


def _inverse_norm(rows: Tensor) -> Tensor:
    square = rows.square().sum(-1, keepdim=True)
    seen = square > 0
    return torch.where(seen, torch.where(seen, square, 1).rsqrt(), 0)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their L2 norm; a row of zeros stays one."""
    return rows * _inverse_norm(rows)


def logits(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float = 0.0, normalize: bool = False
) -> Tensor:
    """(M, D), (N, D) -> z (M, N)."""
    dtype = torch.promote_types(torch.promote_types(image.dtype, text.dtype), torch.float32)
    image, text = image.to(dtype), text.to(dtype)
    if normalize:
        image, text = unit_rows(image), unit_rows(text)
    return logit_scale * (image @ text.mT) + logit_bias


def positive_pairs(
    rows: int,
    columns: int,
    image_group: Tensor | None = None,
    text_group: Tensor | None = None,
    labels: str | None = "diagonal",
    label_offset: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """bool (M, N): j = i + label_offset for "diagonal", equal ids for "groups", nowhere for None."""
    if labels == "groups":
        assert image_group is not None
        assert text_group is not None
        return image_group[:, None] == text_group[None, :]
    i = torch.arange(rows, device=device)[:, None]
    j = torch.arange(columns, device=device)[None, :]
    return (j == i + label_offset) if labels == "diagonal" else torch.zeros_like(i == j)


def contrastive_statistics(z: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """What InfoNCE needs of every row and every column: (4, M) and (4, N), lines logsumexp, mean over the positives, mean, number of positives."""

    def of(z: Tensor, positive: Tensor) -> Tensor:
        count = positive.sum(1)
        target = z.masked_fill(~positive, 0).sum(1) / count.clamp_min(1)
        lse = torch.logsumexp(z, 1) if z.shape[1] else z.new_full((z.shape[0],), -torch.inf)
        return torch.stack([lse, target, z.sum(1) / max(z.shape[1], 1), count.to(z.dtype)])

    return of(z, positive), of(z.mT, positive.mT)


def contrastive_backward(
    grad_rows: Tensor,
    grad_columns: Tensor,
    rows: Tensor,
    columns: Tensor,
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    positive: Tensor,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of image, text and logit_scale from those of the statistics.

    G_ij = dlse_i exp(z_ij - lse_i) + dlse'_j exp(z_ij - lse'_j) + [positive] (dtarget_i / k_i + dtarget'_j / k'_j) + dmean_i / N + dmean'_j / M.
    """
    z = logits(image, text, logit_scale, normalize=normalize)

    def of(z: Tensor, positive: Tensor, grad: Tensor, statistics: Tensor) -> Tensor:
        share = torch.exp(z - statistics[0, :, None])
        targets = grad[1] / statistics[3].clamp_min(1)
        return grad[0, :, None] * share + targets[:, None] * positive + grad[2, :, None] / max(z.shape[1], 1)

    g = of(z, positive, grad_rows, rows) + of(z.mT, positive.mT, grad_columns, columns).mT
    return feature_gradients(g, image, text, logit_scale, normalize)


def sigmoid_row_losses(z: Tensor, positive: Tensor) -> Tensor:
    """sum_j softplus(z_ij) - sum over positives z_ij, one number a row."""
    return F.softplus(z, threshold=1e9).sum(1) - z.masked_fill(~positive, 0).sum(1)


def sigmoid_backward(
    grad_row: Tensor,
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    positive: Tensor,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of image, text, logit_scale and logit_bias: G_ij = grad_i (sigmoid(z_ij) - [positive])."""
    z = logits(image, text, logit_scale, logit_bias, normalize)
    g = grad_row[:, None] * (z.sigmoid() - positive.to(z.dtype))
    return *feature_gradients(g, image, text, logit_scale, normalize), g.sum()


def feature_gradients(
    g: Tensor, image: Tensor, text: Tensor, logit_scale: Tensor, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """From G = dL/dz: dX = s G Y, dY = s G^T X, ds = sum_ij G_ij <x_i, y_j>; through x = u / |u| where the features were normalised inside."""
    u, v = image.to(g.dtype), text.to(g.dtype)
    x, y = (unit_rows(u), unit_rows(v)) if normalize else (u, v)
    dx, dy = g @ y, g.mT @ x
    dscale = (x * dx).sum()
    if normalize:
        dx = _inverse_norm(u) * (dx - x * (x * dx).sum(-1, keepdim=True))
        dy = _inverse_norm(v) * (dy - y * (y * dy).sum(-1, keepdim=True))
    return logit_scale * dx, logit_scale * dy, dscale


def contrastive_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    image_group: Tensor | None = None,
    text_group: Tensor | None = None,
    label_offset: int = 0,
    label_smoothing: float = 0.0,
    symmetric: bool = True,
    normalize: bool = False,
) -> Tensor:
    """Mean symmetric InfoNCE with soft targets T (rows sum to 1): the mean over rows of -sum_j T_ij log softmax_j(z_ij), and the same for columns, halved.

    Rows and columns without a positive do not count.
    """
    z = logits(image, text, logit_scale, normalize=normalize)
    labels = "diagonal" if image_group is None else "groups"
    positive = positive_pairs(z.shape[0], z.shape[1], image_group, text_group, labels, label_offset, z.device)

    def direction(z: Tensor, positive: Tensor) -> Tensor:
        count = positive.sum(1, keepdim=True)
        target = positive / count.clamp_min(1) * (1 - label_smoothing) + label_smoothing / z.shape[1]
        losses = -(target * torch.log_softmax(z, 1)).sum(1)
        return losses[count[:, 0] > 0].mean()

    forward = direction(z, positive)
    return (forward + direction(z.mT, positive.mT)) / 2 if symmetric else forward


def sigmoid_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    image_group: Tensor | None = None,
    text_group: Tensor | None = None,
    labels: str | None = "diagonal",
    label_offset: int = 0,
    normalize: bool = False,
) -> Tensor:
    """-1/M sum_ij log sigmoid(l_ij z_ij) with l = 1 for positive pairs, -1 for the others."""
    z = logits(image, text, logit_scale, logit_bias, normalize)
    labels = labels if image_group is None else "groups"
    positive = positive_pairs(z.shape[0], z.shape[1], image_group, text_group, labels, label_offset, z.device)
    return -F.logsigmoid(torch.where(positive, z, -z)).sum() / max(z.shape[0], 1)
