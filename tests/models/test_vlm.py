from __future__ import annotations

import pytest
import torch

from vlmkernels.models import (
    LanguageModelConfig,
    VisionLanguageModel,
    VisionLanguageModelConfig,
    VisionTransformerConfig,
)

IMAGE = 4


def make(fusion="cross_attention", row_mask="meta") -> VisionLanguageModel:
    torch.manual_seed(1)
    layers = (1, 3) if fusion == "cross_attention" else ()
    config = VisionLanguageModelConfig(
        VisionTransformerConfig(image_size=16, patch_size=8, width=32, depth=1, heads=2),
        LanguageModelConfig(32, width=32, depth=4, heads=4, kv_heads=2, intermediate=48, cross_attention_layers=layers),
        fusion=fusion,
        row_mask=row_mask,
    )
    model = VisionLanguageModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.7)
            elif parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return model


PIXELS = torch.arange(2 * 2 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(2, 2, 3, 16, 16)


def test_text_sees_only_the_images_before_it(backend):
    model = make()
    tokens = torch.tensor([[5, IMAGE, 6, 7, IMAGE, 8]])
    base = model(tokens, PIXELS[:1])
    second = PIXELS[:1].clone()
    second[:, 1] = 255 - second[:, 1]
    changed = model(tokens, second)
    assert torch.equal(base[:, :4], changed[:, :4])
    assert not torch.allclose(base[:, 4:], changed[:, 4:])
    first = PIXELS[:1].clone()
    first[:, 0] = 255 - first[:, 0]
    changed = model(tokens, first)
    assert torch.equal(base[:, 0], changed[:, 0])
    assert not torch.allclose(base[:, 1], changed[:, 1])


def test_gates_start_closed():
    config = make().config
    model = VisionLanguageModel(config)
    tokens = torch.tensor([[IMAGE, 5, 6]])
    torch.testing.assert_close(model(tokens, PIXELS[:1]), model(tokens))


def test_row_mask_changes_only_rows_before_the_image():
    tokens = torch.tensor([[5, 6, IMAGE, 7]])
    meta, hf = make(row_mask="meta")(tokens, PIXELS[:1]), make(row_mask="hf")(tokens, PIXELS[:1])
    assert not torch.allclose(meta[:, 0], hf[:, 0])


@pytest.mark.parametrize("fusion", ["cross_attention", "embedding"])
def test_generation_with_a_cache_is_generation_without(fusion, backend):
    model = make(fusion)
    pixels = PIXELS[:, :1]
    prompts = [[1, IMAGE, 6], [1, 7, 8, 9, IMAGE, 5]]
    found = model.generate(prompts, pixels, max_new_tokens=6)
    for row, prompt in enumerate(prompts):
        per_image = model.encode_images(pixels[:1]).shape[2]
        ids = model.expand_image_tokens(prompt, per_image) if fusion == "embedding" else list(prompt)
        plain: list[int] = []
        for _ in range(6):
            token = int(model(torch.tensor([ids]), pixels[row : row + 1])[0, -1].argmax())
            if token == model.config.end_token:
                break
            plain.append(token)
            ids.append(token)
        assert found[row] == plain


def test_sampling_obeys_its_generator_and_its_limits():
    model = make()
    prompts = [[1, IMAGE], [1, IMAGE, 9]]

    def draw(seed, **kw):
        generator = torch.Generator().manual_seed(seed)
        return model.generate(prompts, PIXELS[:, :1], max_new_tokens=8, generator=generator, **kw)

    assert draw(3, temperature=1.0) == draw(3, temperature=1.0)
    greedy = model.generate(prompts, PIXELS[:, :1], max_new_tokens=8)
    assert draw(0, temperature=2.0, top_k=1) == greedy
    assert draw(0, temperature=2.0, top_p=1e-6) == greedy
    with pytest.raises(ValueError, match="top_p is 0"):
        draw(0, temperature=1.0, top_p=0)


def test_training_reaches_every_parameter():
    model = make().train()
    tokens = torch.randint(5, 32, (2, 7))
    tokens[:, 0] = IMAGE
    logits = model(tokens, PIXELS[:, :1])
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


def test_save_and_load(tmp_path):
    model = make("embedding")
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = VisionLanguageModel.from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.generate([[1, IMAGE]], PIXELS[:1, :1], max_new_tokens=4) == model.generate(
        [[1, IMAGE]], PIXELS[:1, :1], max_new_tokens=4
    )


def test_bad_input():
    model = make("embedding")
    with pytest.raises(ValueError, match="expand_image_tokens"):
        model(torch.tensor([[1, IMAGE, 5]]), PIXELS[:1, :1])
    with pytest.raises(ValueError, match="prompts is empty"):
        model.generate([])
    with pytest.raises(ValueError, match="cross_attention_layers"):
        VisionLanguageModelConfig(fusion="embedding")
    with pytest.raises(ValueError, match="pixels are for 2 rows"):
        make()(torch.tensor([[1]]), PIXELS)
