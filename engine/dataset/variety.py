"""What a set shows again and again, and what it never shows: told by its captions' words and its pictures' colours.

A LoRA cannot tell the subject from what is always beside it. Captions are searched for words of framing, light,
places and clothes; a few lists of words are no understanding, so all of it is said as notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.dataset.problems import Problem, Severity, problem
from engine.dataset.quality_check import Measured

FEWEST = 8
"""Pictures below which nothing is said of variety: the count says enough."""

ALWAYS = 0.9
"""Share of the captions that name a thing from which it is always the same."""

MENTIONED = 0.3
"""Share of the captions that must speak of a matter at all."""

TAGS = 4
"""Pieces between commas from which a caption may be a list of tags."""

_ALIKE_LIGHT = 8.0
"""Spread of the pictures' mean light, of 255, below which all are about as light."""

_ALIKE_EDGES, _PLAIN_EDGES = 14.0, 14.0
"""Spread of the colours around the pictures' edges, and within one of them, below which backgrounds are alike."""

WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "framing": {
        "close-up": ("close-up", "close up", "closeup", "headshot", "head shot", "macro", "face shot"),
        "portrait": ("portrait", "upper body", "bust", "half body", "waist up", "medium shot", "cowboy shot"),
        "full body": ("full body", "full-body", "full length", "head to toe", "standing full"),
        "wide shot": ("wide shot", "wide angle", "long shot", "landscape shot", "from afar", "in the distance"),
        "side or back": ("profile", "from the side", "side view", "from behind", "back view", "over the shoulder"),
        "from above or below": ("from above", "from below", "low angle", "high angle", "top view", "overhead",
                                "bird's-eye"),
    },
    "light": {
        "daylight": ("daylight", "sunlight", "sunny", "midday", "bright day", "natural light", "outdoor light"),
        "sunset": ("sunset", "sunrise", "golden hour", "dusk", "dawn", "twilight"),
        "night": ("night", "dark", "neon", "moonlight", "candlelight"),
        "studio": ("studio", "softbox", "flash", "rim light", "studio light"),
        "soft": ("soft light", "overcast", "cloudy", "diffused", "window light", "shade"),
        "indoor light": ("lamp", "indoor lighting", "fluorescent", "warm light"),
    },
    "background": {
        "plain": ("plain background", "white background", "grey background", "gray background", "black background",
                  "simple background", "neutral background"),
        "nature": ("forest", "beach", "mountain", "field", "park", "garden", "lake", "meadow", "sea", "trees"),
        "street": ("street", "city", "building", "road", "urban", "market", "alley"),
        "room": ("room", "kitchen", "office", "bedroom", "indoors", "wall", "cafe", "shop", "sofa"),
    },
    "clothes": {
        "dress": ("dress", "skirt", "gown"),
        "shirt": ("shirt", "t-shirt", "blouse", "top", "sweater", "hoodie", "pullover"),
        "suit": ("suit", "blazer", "tie", "uniform"),
        "coat": ("coat", "jacket", "scarf", "parka"),
        "sportswear": ("sportswear", "swimsuit", "bikini", "tracksuit", "shorts"),
    },
}  # fmt: skip
"""Matters, the kinds of each, and the words that tell of them."""

_PATTERNS = {
    matter: {kind: re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})s?\b") for kind, words in kinds.items()}
    for matter, kinds in WORDS.items()
}
_MATTERS = {
    "framing": "Show it from near and far, from the side and from behind, or the LoRA draws one framing alone.",
    "light": "Add other light: it is learned as a part of the subject.",
    "background": "Add other places, or name this one in every caption so that it can be told from the subject.",
    "clothes": "Add other clothes, or name these in every caption: else they are worn in every sample.",
}


@dataclass(frozen=True)
class Band:
    """How many pictures a recipe wants."""

    recipe: str
    least: int
    best: int
    most: int


def count_problems(pictures: int, band: Band, folder: Path) -> Iterator[Problem]:
    """The number of pictures against what the recipe wants."""
    if pictures < band.least:
        message = f"{pictures} pictures are few for a {band.recipe}, which takes {band.least} to {band.most}"
        yield problem(folder, "few-pictures", "warning", message, f"About {band.best} that differ teach it best.")
    elif pictures > band.most:
        message = f"{pictures} pictures are many for a {band.recipe}, which takes {band.least} to {band.most}"
        yield problem(folder, "many-pictures", "note", message, f"The best {band.best} of them teach it as well.")


def is_tag_list(caption: str, separator: str = ",") -> bool:
    """Whether a caption is a list of short tags, no sentence."""
    pieces = [piece.split() for piece in caption.split(separator or ",") if piece.strip()]
    if len(pieces) < TAGS or re.search(r"[.!?](\s|$)", caption):
        return False
    return sum(map(len, pieces)) / len(pieces) <= 3.0 and max(map(len, pieces)) <= 8


def style_problems(captions: Sequence[str], folder: Path, t5: bool = True) -> Iterator[Problem]:
    """Whether captions are of the kind that the model reads, and all of one kind."""
    written = [caption for caption in captions if caption.strip()]
    if len(written) < 2:
        return
    tagged = sum(is_tag_list(caption) for caption in written)
    share = tagged / len(written)
    if t5 and share > 0.5:
        message = (
            f"{tagged} of {len(written)} captions are lists of tags; T5, which FLUX.1 reads with, knows sentences"
        )
        hint = "Write a sentence or two for each, or caption them by machine; tags alone teach less."
        yield problem(folder, "tag-captions", "warning", message, hint)
    elif 0.1 <= share <= 0.9 and len(written) >= FEWEST:
        message = f"{tagged} captions are lists of tags, {len(written) - tagged} are sentences"
        yield problem(folder, "mixed-captions", "note", message, "Keep to one of the two: prompts will too.")


def variety_problems(captions: Sequence[str], pictures: Sequence[Measured], folder: Path) -> Iterator[Problem]:
    """What is always the same, and what nothing tells of."""
    if max(len(captions), len(pictures)) < FEWEST:
        return
    texts = [caption.casefold() for caption in captions if caption.strip()]
    if len(texts) >= FEWEST:
        for matter in WORDS:
            yield from _matter(matter, texts, folder)
    if len(pictures) >= FEWEST:
        yield from _colours(pictures, folder)


def _matter(matter: str, texts: Sequence[str], folder: Path) -> Iterator[Problem]:
    kinds: Counter[str] = Counter()
    spoken = 0
    for text in texts:
        found = [kind for kind, pattern in _PATTERNS[matter].items() if pattern.search(text)]
        kinds.update(found)
        spoken += bool(found)
    if spoken == 0 and matter != "clothes":  # a thing or a landscape wears none
        message = f"No caption names the {matter}"
        hint = "What is not named is learned as a part of the subject: name what should stay free to change."
        yield _note(folder, f"unnamed-{matter}", message, hint)
    elif spoken >= MENTIONED * len(texts):
        kind, count = kinds.most_common(1)[0]
        missing = [other for other in _PATTERNS[matter] if other not in kinds]
        if count >= ALWAYS * spoken and len(kinds) <= 2:
            message = f"Of {spoken} captions that name the {matter}, {count} have the same: {kind}"
            yield _note(folder, f"same-{matter}", message, _MATTERS[matter])
        elif matter in ("framing", "light") and missing and len(missing) < len(_PATTERNS[matter]) - 1:
            message = f"No caption tells of this {matter}: {', '.join(missing)}"
            yield _note(folder, f"missing-{matter}", message, "Only if samples should have it: add a few.")


def _colours(pictures: Sequence[Measured], folder: Path) -> Iterator[Problem]:
    seen = [each.kept.measures for each in pictures]
    if float(np.std([each.light for each in seen])) < _ALIKE_LIGHT:
        message = "All pictures are about equally light"
        yield _note(folder, "same-brightness", message, _MATTERS["light"])
    plain = [each.edges[:3] for each in seen if each.edges[3] < _PLAIN_EDGES]
    if len(plain) >= ALWAYS * len(seen) and float(np.std(np.array(plain), axis=0).max()) < _ALIKE_EDGES:
        message = f"{len(plain)} of {len(seen)} pictures have a plain background of the same colour"
        yield _note(folder, "same-edges", message, _MATTERS["background"])


def _note(folder: Path, code: str, message: str, hint: str) -> Problem:
    severity: Severity = "note"
    return problem(folder, code, severity, message, hint)
