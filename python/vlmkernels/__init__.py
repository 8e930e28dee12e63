"""Hand-written kernels for vision-language models as torch operators.

Attention, patch embedding and contrastive losses; see :mod:`vlmkernels.ops` for the operators, :mod:`vlmkernels.models` for models on top of them,
:mod:`vlmkernels.reference` for the same operations in plain PyTorch and :mod:`vlmkernels.backends` for what runs where.
"""

from vlmkernels.backends import use_backend
from vlmkernels.ops.attention import attention, cross_attention, scaled_dot_product_attention
from vlmkernels.ops.attention_varlen import attention_varlen
from vlmkernels.ops.patch_embed import patch_embed, patch_embed_packed

__version__ = "0.1.0"

__all__ = [
    "attention",
    "attention_varlen",
    "cross_attention",
    "patch_embed",
    "patch_embed_packed",
    "scaled_dot_product_attention",
    "use_backend",
]
