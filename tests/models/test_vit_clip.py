from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vlmkernels.models import CLIP, CLIPConfig, TextTowerConfig, VisionTransformer, VisionTransformerConfig
from vlmkernels.models.layers import interpolate_position
from vlmkernels.models.tokenizer import Tokenizer


def small(**changes) -> VisionTransformerConfig:
    return VisionTransformerConfig(
        **{"image_size": 32, "patch_size": 8, "width": 48, "depth": 2, "heads": 3, **changes}
    )


def test_vit_against_plain_torch(backend):
    """The same forward pass written with convolution and torch's attention."""
    model = VisionTransformer(small(classes=5, prefix_tokens=3))
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    e = model.embed
    x = (pixels / 255 - 0.5) / 0.5
    x = F.conv2d(x, e.weight, e.bias, stride=8).flatten(2).mT
    x = torch.cat([e.prefix.expand(2, -1, -1), x], 1) + e.position
    for block in model.blocks:
        q, k, v = block.attention.qkv(block.norm1(x)).view(2, -1, 3, 3, 16).permute(2, 0, 3, 1, 4)
        x = x + block.attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    expected = model.head(model.norm(x)[:, 0])
    torch.testing.assert_close(model(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_other_image_sizes_interpolate_the_positions(pooling):
    model = VisionTransformer(small(pooling=pooling))
    assert model(torch.rand(1, 3, 48, 24)).shape == (1, 48)
    assert model.attention_map(torch.rand(1, 3, 48, 24)).shape == (1, 18)
    position = model.embed.position
    assert interpolate_position(position, 1, (1, 4, 4), (1, 4, 4)) is position
    constant = torch.cat([torch.randn(1, 8), torch.ones(16, 8)])
    resized = interpolate_position(constant, 1, (1, 4, 4), (1, 6, 5))
    assert torch.equal(resized[0], constant[0])
    torch.testing.assert_close(resized[1:], torch.ones(30, 8))


def test_video(backend):
    model = VisionTransformer(small(frames=4, tubelet_size=2, classes=3))
    assert model.embed.weight.shape == (48, 3, 2, 8, 8)
    assert model(torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)).shape == (2, 3)
    assert model(torch.rand(2, 6, 3, 32, 32)).shape == (2, 3)


def make_clip() -> CLIP:
    return CLIP(CLIPConfig(small(), TextTowerConfig(30, 8, 32, 1, 2), 24))


def test_clip_learns_a_batch(backend):
    model = make_clip()
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.arange(1, 7)[:, None].repeat(1, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model(pixels, tokens).item()
    for _ in range(25):
        optimizer.zero_grad()
        loss = model(pixels, tokens)
        loss.backward()
        optimizer.step()
        model.clamp_logit_scale()
    assert loss.item() < 0.3 * first
    assert model.zero_shot(pixels, tokens).argmax(1).tolist() == list(range(6))


def test_clip_groups_and_padding():
    model = make_clip().eval()
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.tensor([[1, 5, 2, 0, 0], [1, 6, 2, 0, 0], [1, 5, 2, 0, 0], [1, 7, 8, 2, 0]])
    assert model(pixels, tokens, groups=torch.tensor([0, 1, 0, 2])) < model(pixels, tokens) + 10
    torch.testing.assert_close(model.encode_text(tokens), model.encode_text(F.pad(tokens, (0, 2))))
    with pytest.raises(ValueError, match="truncate"):
        model.encode_text(torch.ones(1, 9, dtype=torch.long))


def test_save_and_load(tmp_path):
    model = make_clip().eval()
    model.save_pretrained(tmp_path)
    again = CLIP.from_pretrained(tmp_path)
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.encode_image(pixels), again.encode_image(pixels))
    with pytest.raises(ValueError, match="holds a CLIP"):
        VisionTransformer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        CLIP.from_pretrained(tmp_path / "nowhere")


def test_bad_configs():
    for changes, message in (
        ({"heads": 5}, "head dimension"),
        ({"patch_size": 7}, "multiples"),
        ({"prefix_tokens": 0}, "pooling"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**changes)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_tokenizer(kind, tmp_path):
    tokenizer = Tokenizer.train(["red apple", "three o\u2019clock", "green apple!"], kind, 300)
    ids = tokenizer(["green apple", "apple"])
    assert ids[1, -1] == tokenizer.pad or kind == "bpe"
    assert ids[0, 0] == tokenizer.start
    assert tokenizer.decode(ids[0]) == "green apple"
    assert tokenizer(["green apple"], 2).tolist() == [[tokenizer.start, tokenizer.end]]
    tokenizer.save(tmp_path / "tokenizer.json")
    assert torch.equal(Tokenizer.load(tmp_path / "tokenizer.json")(["green apple", "apple"]), ids)
    if kind == "word":
        assert tokenizer(["blue"])[0, 1] == tokenizer.unknown
