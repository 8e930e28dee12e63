"""A CLIP from scratch on OpenMoji's drawings: held-out retrieval and free-text queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmkernels.demo import pictures, report
from vlmkernels.demo.augment import augment
from vlmkernels.demo.drawings import Drawing, Split, find_drawings, images_of, split, words_of
from vlmkernels.demo.result import CREDIT, Result, history_facts
from vlmkernels.demo.search import caption_features, closest, drawing_features, fair_scores, vocabulary_of, words_in
from vlmkernels.demo.training import History, fit
from vlmkernels.models.clip import CLIP, CLIPConfig, TextTowerConfig
from vlmkernels.models.tokenizer import Tokenizer
from vlmkernels.models.vit import VisionTransformerConfig
from vlmkernels.ops.contrastive import contrastive_loss

__all__ = ["ClipRecipe", "Collection", "Pairs", "load_collection", "retrieval", "run_clip"]


@dataclass(frozen=True)
class ClipRecipe:
    """Everything that decides the numbers, beside the seed."""

    size: int = 32
    patch: int = 8
    width: int = 192
    depth: int = 2
    heads: int = 6
    embedding: int = 96
    text_width: int = 96
    text_depth: int = 0  # names of drawings are bags of words: attention between words only memorises them
    context: int = 16
    steps: int = 500
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 2.0
    label_smoothing: float = (
        0.2  # names that share words are not wholly wrong; without it training memorises the right one
    )
    color: float = 0.05  # names speak of colours: little of their change
    mirrored: float = 0.5  # how often a drawing that has no left and right is mirrored
    flag_share: float = 0.2  # flags of countries are a sixth of all drawings and teach little else
    alias_share: float = 0.3  # how often a caption is one of the other names of its drawing
    models: int = 2  # trained one after the other from different seeds; their similarities are averaged
    views: int = 8  # of a drawing, besides itself, that its features are averaged over
    neighbours: int = 10  # training pairs that tell which captions and drawings are close to everything


@dataclass
class Collection:
    """The drawings without skin-tone variants, their images, and the split as indices into both."""

    drawings: list[Drawing]
    images: Tensor
    split: Split

    def captions(self, indices: Sequence[int]) -> list[str]:
        return [self.drawings[n].name for n in indices]


def load_collection(size: int) -> Collection:
    """Finds, splits and rasterises; the images come from the cache after the first time."""
    from tqdm import tqdm

    everything = find_drawings()
    chosen = split(everything)
    shown = {n for n, drawing in enumerate(everything) if not drawing.toned} | set(chosen.held_out)
    place = {n: i for i, n in enumerate(sorted(shown))}
    drawings = [everything[n] for n in sorted(shown)]
    images = images_of(
        drawings, size, progress=lambda items: tqdm(items, total=len(drawings), desc="rasterising", unit="drawing")
    )
    indices = Split([place[n] for n in chosen.train if n in place], [place[n] for n in chosen.held_out])
    return Collection(drawings, torch.from_numpy(images), indices)


_SIDED = {
    "left",
    "right",
    "leftwards",
    "rightwards",
    "button",
    "keycap",
    "flag",
    "clock",
    "clockwise",
    "sign",
    "symbol",
    "arrow",
    "arrows",
    "latin",
    "input",
    "letter",
    "number",
    "square",
    "circled",
    "squared",
    "sagittarius",
    "mark",
    "hands",
    "up",
    "down",
}


def _has_no_side(drawing: Drawing) -> bool:
    """True if nothing in its captions says that the mirrored drawing would be another one."""
    words = {word for caption in drawing.captions for word in words_of(caption)}
    return not words & _SIDED and not any("clock" in word or word == "thirty" for word in words)


class Batch(NamedTuple):
    """Images (B, 3, H, W) uint8, token ids of their captions (B, S), ids of all words of these captions (W,), and the image that each word belongs to (W,)."""

    images: Tensor
    captions: Tensor
    words: Tensor
    owners: Tensor


class Pairs:
    """Endless batches: every concept once an epoch, one of its drawings and one of its captions."""

    def __init__(self, collection: Collection, tokenizer: Tokenizer, recipe: ClipRecipe, seed: int) -> None:
        self.collection, self.recipe = collection, recipe
        self.random = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        concepts: dict[str, list[int]] = {}
        for n in collection.split.train:
            concepts.setdefault(collection.drawings[n].concept, []).append(n)
        self.concepts = list(concepts.values())
        self.mirrors = torch.tensor([_has_no_side(drawing) for drawing in collection.drawings])
        captions = dict.fromkeys(caption for n in collection.split.train for caption in collection.drawings[n].captions)
        self.places = {caption: place for place, caption in enumerate(captions)}
        self.tokens = tokenizer(list(captions), recipe.context)
        self.lengths = (self.tokens != tokenizer.pad).sum(1)
        self.words = words_in(self.tokens, tokenizer)
        self.pending: list[int] = []

    def batch(self) -> Batch:
        taken = self.take()
        places = torch.tensor([self.places[self._caption(n)] for n in taken])
        tokens = self.tokens[places]
        owners, columns = self.words[places].nonzero(as_tuple=True)
        longest = int(self.lengths[places].max())
        return Batch(self.views(taken), tokens[:, :longest], tokens[owners, columns], owners)

    def take(self) -> list[int]:
        """Indices of the next batch of drawings."""
        while len(self.pending) < self.recipe.batch:
            self.pending += self._epoch()
        taken, self.pending = self.pending[: self.recipe.batch], self.pending[self.recipe.batch :]
        return taken

    def views(self, taken: list[int]) -> Tensor:
        """Augmented images of these drawings."""
        images = self.collection.images[taken]
        mirrored = self.mirrors[taken] & (torch.rand(len(taken), generator=self.generator) < self.recipe.mirrored)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return augment(images, self.generator, color=self.recipe.color)

    def _epoch(self) -> list[int]:
        drawn = [members[self.random.integers(len(members))] for members in self.concepts]
        names = self.collection.drawings
        kept = [
            n for n in drawn if not names[n].name.startswith("flag of") or self.random.random() < self.recipe.flag_share
        ]
        return [kept[i] for i in self.random.permutation(len(kept))]

    def _caption(self, n: int) -> str:
        captions = self.collection.drawings[n].captions
        if len(captions) == 1 or self.random.random() > self.recipe.alias_share:
            return captions[0]
        return captions[self.random.integers(len(captions))]


def loss_of(model: CLIP, batch: Batch, vocabulary: Tensor, label_smoothing: float) -> Tensor:
    """Mean of two contrastive losses over one pass of the image tower: images with their captions, and images with the words of these among all words.

    Names of drawings are mostly unique, so captions alone are learned by heart. Words are shared, and new names are made of them: an image has to be closer to each
    of its words than to the rest of the vocabulary, (V, 3) token ids of <start>, the word, <end>. The text tower is a bag of words, so all of them cost little."""
    images = model.image_features(batch.images)
    captions: Tensor = contrastive_loss(
        images, model.text_features(batch.captions), model.logit_scale, label_smoothing=label_smoothing, normalize=True
    )
    # One row a word of a caption. index_select, whose gradient is summed in one order whatever the number of threads.
    words: Tensor = contrastive_loss(
        images.index_select(0, batch.owners),
        model.text_features(vocabulary),
        model.logit_scale,
        labels=(batch.words, vocabulary[:, 1]),
        label_smoothing=label_smoothing,
        symmetric=False,  # most words are of no image of the batch
        reduction="none",
        normalize=True,
    )
    share = 1 / torch.bincount(batch.owners, minlength=len(images))[batch.owners]
    return (captions + (words * share).sum() / len(images)) / 2


def make_model(recipe: ClipRecipe, vocabulary: int) -> CLIP:
    vision = VisionTransformerConfig(
        image_size=recipe.size, patch_size=recipe.patch, width=recipe.width, depth=recipe.depth, heads=recipe.heads,
        prefix_tokens=0, pooling="mean",
    )  # fmt: skip
    text = TextTowerConfig(
        vocabulary, recipe.context, recipe.text_width, recipe.text_depth, recipe.text_width // 32, pooling="mean"
    )
    return CLIP(CLIPConfig(vision, text, recipe.embedding))


def train(collection: Collection, tokenizer: Tokenizer, recipe: ClipRecipe, seed: int) -> tuple[CLIP, History]:
    torch.manual_seed(seed)
    model = make_model(recipe, len(tokenizer))
    pairs = Pairs(collection, tokenizer, recipe, seed)
    vocabulary = vocabulary_of(tokenizer)
    history = fit(
        model,
        lambda: loss_of(model, pairs.batch(), vocabulary, recipe.label_smoothing),
        steps=recipe.steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        after_step=model.clamp_logit_scale,
        label="training CLIP",
    )
    return model, history


def retrieval(similarity: Tensor) -> dict[str, float]:
    """Percentages of rows (queries) whose own column is the best, or among the best five; both directions of (text, image) similarity."""
    found = {}
    for name, scores in (("text to image", similarity), ("image to text", similarity.mT)):
        rank = (scores > scores.diagonal()[:, None]).sum(1)
        for k in (1, 5):
            found[f"{name} top-{k}"] = (rank < k).double().mean().item() * 100
    return found


def run_clip(
    out: Path, queries: Sequence[str], seed: int, steps: int | None = None, recipe: ClipRecipe | None = None
) -> Result:
    """Trains (or, for queries, takes the model that an earlier run with the same recipe left in `out`), measures, draws."""
    recipe = recipe or ClipRecipe()
    if steps is not None:
        recipe = ClipRecipe(**{**asdict(recipe), "steps": steps})
    collection = load_collection(recipe.size)
    folder, identity = out / "model", {"recipe": asdict(recipe), "seed": seed}
    folders = [folder / str(n) for n in range(recipe.models)]
    if queries and _saved(folder) == identity:
        tokenizer, history = Tokenizer.load(folder / "tokenizer.json"), History()
        models = [CLIP.from_pretrained(one) for one in folders]
    else:
        training = collection.split.train
        tokenizer = Tokenizer.train(caption for n in training for caption in collection.drawings[n].captions)
        # Seeds far apart, so that those of two runs side by side have no model in common.
        trained = [train(collection, tokenizer, recipe, seed + 1_000_003 * n) for n in range(recipe.models)]
        models, history = [model for model, _ in trained], trained[0][1]
        history.seconds = sum(one.seconds for _, one in trained)
        history.items = sum(one.items for _, one in trained)
        for model, one in zip(models, folders, strict=True):
            model.save_pretrained(one)
        tokenizer.save(folder / "tokenizer.json")
        (folder / "identity.json").write_text(json.dumps(identity))
    return _report(out, collection, tokenizer, models, history, queries, recipe, seed)


def _saved(folder: Path) -> object:
    path = folder / "identity.json"
    return json.loads(path.read_text()) if path.is_file() else None


@torch.no_grad()
def _report(
    out: Path,
    collection: Collection,
    tokenizer: Tokenizer,
    models: Sequence[CLIP],
    history: History,
    queries: Sequence[str],
    recipe: ClipRecipe,
    seed: int,
) -> Result:
    training, held_out = collection.split.train, collection.split.held_out
    names = collection.captions(held_out)
    drawings = drawing_features(models, collection.images, recipe.views, recipe.color, seed)
    known = caption_features(models, tokenizer, collection.captions(training), recipe.context)
    hubs = closest(drawings, known, recipe.neighbours)

    def compare(captions: Sequence[str], candidates: Sequence[int]) -> Tensor:
        features = caption_features(models, tokenizer, captions, recipe.context)
        caption_hubs = closest(features, drawings[training], recipe.neighbours)
        return fair_scores(features, drawings[list(candidates)], caption_hubs, hubs[list(candidates)])

    similarity = compare(names, held_out)
    numbers = retrieval(similarity)
    chance = 100 / len(held_out)
    result = Result(numbers={**numbers, "images per second": history.rate, "seconds": history.seconds})
    facts = [
        (
            f"{direction}, {len(held_out)} held-out pairs",
            f"top-1 {numbers[f'{direction} top-1']:.0f} %, top-5 {numbers[f'{direction} top-5']:.0f} % (chance {chance:.0f} %, {5 * chance:.0f} %)",
        )
        for direction in ("image to text", "text to image")
    ]
    facts += history_facts(history, models=len(models))
    result.lines += [f"{name}: {value}" for name, value in facts]

    shown: list[tuple[str, str, Path]] = []
    images = collection.images.numpy()
    if queries:
        rows = []
        for query in queries:
            best = compare([query], range(len(drawings)))[0].topk(8).indices.tolist()
            unknown = [word for word, known in _words(tokenizer, query) if not known]
            note = f" (never seen in training: {', '.join(unknown)})" if unknown else ""
            result.lines.append(f"{query!r}{note}: " + ", ".join(collection.captions(best[:5])))
            rows.append((query, [(images[n], collection.drawings[n].name, None) for n in best]))
        shown.append(
            (
                "Queries",
                "The best drawings of the whole collection for each text.",
                pictures.image_grid(rows, out / "queries.png"),
            )
        )
    rows = []
    for n in range(8):
        best = similarity[n].topk(5).indices.tolist()
        rows.append((names[n], [(images[held_out[b]], names[b], b == n) for b in best]))
    shown.append(
        (
            "Retrieval",
            "The first held-out captions and the five held-out drawings closest to each; the right one in green.",
            pictures.image_grid(rows, out / "retrieval.png"),
        )
    )
    if history.losses:
        shown.append(
            (
                "Loss",
                "Contrastive loss over the training steps, the mean of that with captions and that with words.",
                pictures.loss_curve(history.losses, out / "loss.png", "contrastive loss"),
            )
        )
    shown.append(
        (
            "Similarity",
            "Each held-out caption with each held-out drawing: cosines, less what each has with everything.",
            pictures.similarity_matrix(similarity.numpy(), out / "similarity.png"),
        )
    )
    side = recipe.size // recipe.patch
    maps = models[0].vision.attention_map(collection.images[held_out[:5]]).view(-1, side, side)
    rows_of_maps = [
        (images[n], [("attention", weights.numpy())]) for n, weights in zip(held_out[:5], maps, strict=True)
    ]
    shown.append(
        (
            "Attention",
            "Where the last block of the image tower looks, averaged over heads and patches.",
            pictures.attention_map(rows_of_maps, out / "attention.png"),
        )
    )
    result.files = [file for _, _, file in shown]
    result.files.append(report.write_report(out / "report.html", "CLIP from scratch on OpenMoji", facts, shown, CREDIT))
    return result


def _words(tokenizer: Tokenizer, text: str) -> list[tuple[str, bool]]:
    encoding = tokenizer.backend.encode(text)
    return [(text[a:b], i != tokenizer.unknown) for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True)]
