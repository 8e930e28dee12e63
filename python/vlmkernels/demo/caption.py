"""A small vision-language model that names drawings, and where it looks at each word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.demo import pictures, report
from vlmkernels.demo.clip import ClipRecipe, Collection, Pairs, load_collection
from vlmkernels.demo.drawings import words_of
from vlmkernels.demo.result import CREDIT, Result, history_facts
from vlmkernels.demo.training import fit
from vlmkernels.models.language import CrossAttentionLayer, DecoderLayer, LanguageModelConfig, rotary
from vlmkernels.models.tokenizer import Tokenizer
from vlmkernels.models.vit import VisionTransformerConfig
from vlmkernels.models.vlm import VisionLanguageModel, VisionLanguageModelConfig

__all__ = ["run_caption", "word_maps"]

SIZE, PATCH, BATCH = 32, 8, 64


def make_model(vocabulary: int) -> VisionLanguageModel:
    vision = VisionTransformerConfig(
        image_size=SIZE, patch_size=PATCH, width=96, depth=3, heads=3, prefix_tokens=0, pooling="mean"
    )
    text = LanguageModelConfig(
        vocabulary,
        width=96,
        depth=4,
        heads=6,
        kv_heads=3,
        intermediate=192,
        cross_attention_layers=(1, 3),
        rope_theta=10_000.0,
    )
    model = VisionLanguageModel(VisionLanguageModelConfig(vision, text))
    # Closed gates protect a language model that is trained already; this one starts from nothing and should look at once.
    with torch.no_grad():
        for layer in model.layers:
            if isinstance(layer, CrossAttentionLayer):
                layer.cross_attn_attn_gate.fill_(1.0)
                layer.cross_attn_mlp_gate.fill_(1.0)
    return model


def run_caption(out: Path, seed: int, steps: int | None = None) -> Result:
    """Trains on image/name pairs of training drawings and captions the held-out ones."""
    collection = load_collection(SIZE)
    training = collection.split.train
    tokenizer = Tokenizer.train(collection.captions(training))
    torch.manual_seed(seed)
    pairs = Pairs(collection, tokenizer, ClipRecipe(batch=BATCH), seed)
    model = make_model(len(tokenizer))
    prompt = [tokenizer.start, tokenizer.image]
    names = tokenizer(collection.captions(range(len(collection.drawings))))
    tokens = torch.cat([torch.tensor(prompt).expand(len(names), -1), names[:, 1:]], 1)  # <start> <image> words <end>

    def loss() -> Tensor:
        taken = pairs.take()
        batch = tokens[taken]
        batch = batch[:, : int((batch != tokenizer.pad).sum(1).max())]
        scores = model(batch[:, :-1], pairs.views(taken))
        target = batch[:, 1:].masked_fill(batch[:, 1:] == tokenizer.pad, -100)
        target[:, 0] = -100  # nobody has to predict the image
        return F.cross_entropy(scores.flatten(0, 1), target.flatten())

    history = fit(
        model, loss, steps=steps or 800, batch=BATCH, learning_rate=2e-3, weight_decay=1.0, label="training VLM"
    )
    held_out = collection.split.held_out
    written = [
        tokenizer.decode(ids)
        for ids in model.generate([prompt] * len(held_out), collection.images[held_out], max_new_tokens=8)
    ]
    result = _score(collection, held_out, written)
    facts = [(name, f"{value:.0f} % of {len(held_out)}") for name, value in result.numbers.items()]
    facts += history_facts(history)
    result.lines = [f"{name}: {value}" for name, value in facts]
    result.lines += [
        f"  {name!r} is called {text!r}"
        for name, text in list(zip(collection.captions(held_out), written, strict=True))[:8]
    ]
    result.numbers |= {"images per second": history.rate, "seconds": history.seconds}

    order = sorted(range(len(held_out)), key=lambda i: -_overlap(collection.drawings[held_out[i]].name, written[i]))[:6]
    maps = [
        (
            collection.images[held_out[i]].numpy(),
            word_maps(model, tokenizer, collection.images[held_out[i]], written[i]),
        )
        for i in order
    ]
    shown = [
        (
            "Captions",
            "Held-out drawings, the name the model gave, and where the last cross-attention layer looks while it writes each word.",
            pictures.attention_map(maps, out / "captions.png"),
        ),
        (
            "Loss",
            "Cross entropy of the next word over the training steps.",
            pictures.loss_curve(history.losses, out / "loss.png", "cross entropy"),
        ),
    ]
    result.files = [file for _, _, file in shown]
    result.files.append(report.write_report(out / "report.html", "Naming drawings", facts, shown, CREDIT))
    return result


def _overlap(name: str, written: str) -> float:
    a, b = set(words_of(name)), set(words_of(written))
    return len(a & b) / max(len(a | b), 1)


def _score(collection: Collection, held_out: list[int], written: list[str]) -> Result:
    names = collection.captions(held_out)
    some = [_overlap(name, text) > 0 for name, text in zip(names, written, strict=True)]
    exact = [_overlap(name, text) == 1 for name, text in zip(names, written, strict=True)]
    return Result(numbers={
        "held-out drawings named with at least one right word": float(np.mean(some) * 100),
        "held-out drawings named with exactly the right words": float(np.mean(exact) * 100),
    })  # fmt: skip


@torch.no_grad()
def word_maps(
    model: VisionLanguageModel, tokenizer: Tokenizer, image: Tensor, text: str
) -> list[tuple[str, np.ndarray]]:
    """For each word of `text` the weights of the last cross-attention layer over the patches while the model predicts it, averaged over heads."""
    words = words_of(text) or [text]
    ids = [tokenizer.start, tokenizer.image, *tokenizer.ids(" ".join(words), close=False)[1:]]
    tokens = torch.tensor([ids])
    image_tokens = model.encode_images(image[None]).flatten(1, 2)
    x = model.embed_tokens(tokens)
    cos, sin = rotary(
        torch.arange(len(ids))[None], x.shape[-1] // model.config.text.heads, model.config.text.rope_theta
    )
    view = model._view(tokens, image_tokens[:, None], None)
    assert view is not None
    weights = None
    for layer in model.layers:
        if isinstance(layer, DecoderLayer):
            x = layer(x, cos, sin)
        elif isinstance(layer, CrossAttentionLayer):
            weights = layer.cross_attn.weights(layer.input_layernorm(x), image_tokens)
            x = layer(x, view)
    assert weights is not None
    side = SIZE // PATCH
    # The word at position n is predicted from position n - 1.
    return [(word, weights[0, :, n + 1].mean(0).view(side, side).numpy()) for n, word in enumerate(words)]
