"""Models over the operators: the Vision Transformer, CLIP and a vision-language model. Needs the extra `vlmkernels[models]`."""

from vlmkernels.models.clip import CLIP, CLIPConfig, TextTowerConfig
from vlmkernels.models.language import LanguageModelConfig
from vlmkernels.models.vit import VisionTransformer, VisionTransformerConfig
from vlmkernels.models.vlm import VisionLanguageModel, VisionLanguageModelConfig

__all__ = [
    "CLIP",
    "CLIPConfig",
    "LanguageModelConfig",
    "TextTowerConfig",
    "VisionLanguageModel",
    "VisionLanguageModelConfig",
    "VisionTransformer",
    "VisionTransformerConfig",
]
