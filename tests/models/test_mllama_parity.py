"""One cross-attention module, one cross-attention layer and one decoder layer agree with transformers' Mllama on random weights."""

from __future__ import annotations

import pytest
import torch

from vlmkernels.models.language import CrossAttentionLayer, DecoderLayer, ImageView, LanguageModelConfig, rotary

modeling = pytest.importorskip("transformers.models.mllama.modeling_mllama", reason="transformers is not installed")
from transformers.models.mllama.configuration_mllama import MllamaTextConfig  # noqa: E402

B, S, IMAGES, PER_IMAGE = 2, 9, 2, 5


@pytest.fixture
def configs() -> tuple[LanguageModelConfig, MllamaTextConfig]:
    ours = LanguageModelConfig(
        vocabulary=64, width=64, depth=2, heads=4, kv_heads=2, intermediate=96, cross_attention_layers=(1,)
    )
    theirs = MllamaTextConfig(
        vocab_size=64,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        rms_norm_eps=ours.norm_eps,
        cross_attention_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope_theta},
        pad_token_id=0,
    )
    theirs._attn_implementation = "eager"
    return ours, theirs


def _randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_decoder_layer(configs, backend):
    ours, theirs = configs
    other = modeling.MllamaSelfAttentionDecoderLayer(theirs, 0)
    _randomise(other)
    layer = DecoderLayer(ours)
    layer.load_state_dict(other.state_dict())
    x = torch.randn(B, S, 64)
    positions = torch.arange(S).expand(B, S)
    cos, sin = modeling.MllamaRotaryEmbedding(theirs)(x, positions)
    ours_cos, ours_sin = rotary(positions, 16, ours.rope_theta)
    _close(ours_cos, cos)
    causal = torch.full((S, S), torch.finfo(torch.float32).min).triu(1)[None, None]
    expected = other(x, attention_mask=causal, position_embeddings=(cos, sin))
    _close(layer(x, ours_cos, ours_sin), expected[0] if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize("hidden_rows", [False, True])
def test_cross_attention_layer(configs, backend, hidden_rows):
    """Our view of what is visible against the dense mask transformers builds; row_mask="hf" where rows see nothing."""
    ours, theirs = configs
    other = modeling.MllamaCrossAttentionDecoderLayer(theirs, 1)
    _randomise(other)
    layer = CrossAttentionLayer(ours)
    layer.load_state_dict(other.state_dict())
    x, image = torch.randn(B, S, 64), torch.randn(B, IMAGES * PER_IMAGE, 64)
    seen = torch.arange(S)[None, :, None] >= torch.tensor([2 if hidden_rows else 0, 5])[None, None, :]
    visible = seen.expand(B, S, IMAGES)
    # transformers: (B, S, images, tiles) of 1 where visible, one tile an image here
    mask, rows = modeling._prepare_cross_attention_mask(
        visible.long()[..., None].transpose(2, 3), PER_IMAGE, torch.float32
    )
    expected = other(
        x,
        cross_attention_states=image,
        cross_attention_mask=mask,
        attention_mask=None,
        full_text_row_masked_out_mask=rows,
    )
    expected = expected[0] if isinstance(expected, tuple) else expected
    row_mask = visible.any(-1, keepdim=True)
    view = ImageView(image, visible | ~row_mask, PER_IMAGE, row_mask.float())
    _close(layer(x, view), expected)
    attention = other.cross_attn(layer.input_layernorm(x), image, attention_mask=mask)[0]
    _close(layer.cross_attn(layer.input_layernorm(x), view), attention)


def test_rows_that_see_nothing_get_nothing_with_meta(configs, backend):
    ours, _ = configs
    layer = CrossAttentionLayer(ours)
    _randomise(layer)
    x, image = torch.randn(B, S, 64), torch.randn(B, PER_IMAGE, 64)
    visible = (torch.arange(S) >= 4)[None, :, None].expand(B, S, 1)
    out = layer(x, ImageView(image, visible, PER_IMAGE, visible.float()))
    assert torch.equal(out[:, :4], x[:, :4])
    assert not torch.equal(out[:, 4:], x[:, 4:])
