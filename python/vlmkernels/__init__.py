"""Hand-written kernels for vision-language models as torch operators.

Attention, patch embedding and contrastive losses; see :mod:`vlmkernels.ops` for the operators, :mod:`vlmkernels.models` for models on top of them,
:mod:`vlmkernels.reference` for the same operations in plain PyTorch and :mod:`vlmkernels.backends` for what runs where.
"""

from typing import Any

__version__ = "0.1.0"

try:
    import torch as _torch
except Exception as error:  # a broken torch raises whatever its loader raised; `vlmkernels info` has to say so
    _torch_error: Exception | None = error
else:
    _torch_error = None
    del _torch

    from vlmkernels.backends import use_backend
    from vlmkernels.ops.attention import attention, cross_attention, scaled_dot_product_attention
    from vlmkernels.ops.attention_varlen import attention_varlen
    from vlmkernels.ops.contrastive import (
        ContrastiveGrads,
        contrastive_logsumexp,
        contrastive_loss,
        contrastive_loss_and_grads,
    )
    from vlmkernels.ops.merge import merge_attention
    from vlmkernels.ops.patch_embed import patch_embed, patch_embed_packed
    from vlmkernels.ops.sigmoid import SigmoidGrads, sigmoid_loss, sigmoid_loss_and_grads

__all__ = [
    "ContrastiveGrads",
    "SigmoidGrads",
    "attention",
    "attention_varlen",
    "contrastive_logsumexp",
    "contrastive_loss",
    "contrastive_loss_and_grads",
    "cross_attention",
    "merge_attention",
    "patch_embed",
    "patch_embed_packed",
    "scaled_dot_product_attention",
    "sigmoid_loss",
    "sigmoid_loss_and_grads",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    if _torch_error is not None and name in __all__:
        raise ImportError(f"vlmkernels.{name} needs torch, which does not import: {_torch_error}") from _torch_error
    raise AttributeError(f"module 'vlmkernels' has no attribute {name!r}")
