"""What the measures of a set's pictures tell of each other: blur, blocks, borders, copies, marks, odd ones out.

Comes in: pictures with their measures. Goes out: problems, a percentile of sharpness for each picture, and groups of
near duplicates. Nothing is judged by an absolute value where the set itself says what is usual.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dataset.likeness import NEAR, alike
from engine.dataset.problems import Problem, problem
from engine.dataset.quality import CELLS, Measures
from engine.dataset.quality_store import Kept

SOFT = 8.0
"""A picture so many times less sharp than the set's middle one is told: a blur of about one pixel at 512."""

FEWEST = 4
"""Pictures below which a set says nothing of what is usual in it."""

HEAVY = 2.5
"""JPEG blocks from which they are told: quality 30 and below."""

MARKED, MARKED_SHARE, MARKED_CELLS = 6, 0.9, 10
"""A mark is said where, of at least so many pictures, such a share has the same so many cells standing out."""

OUTER = CELLS // 5
"""Cells from each edge within which marks are looked for."""

APART, APART_FEWEST = 4.5, 8
"""Robust standard deviations from the middle, in a set of so many, from which a picture stands apart."""


@dataclass(frozen=True)
class Measured:
    """A picture with what was measured of it."""

    path: Path
    name: str
    width: int
    height: int
    kept: Kept
    cropped: bool = False
    """The user gave it a crop: its borders are theirs to judge."""
    regularization: bool = False


def percentiles(pictures: Sequence[Measures]) -> list[int]:
    """How sharp each is among all, 0 the most blurred, 100 the sharpest; 50 for one that is alone."""
    values = np.array([seen.sharpness for seen in pictures])
    if len(values) < 2:
        return [50] * len(values)
    ranks = np.searchsorted(np.sort(values), values)
    return [int(rank) for rank in (100 * ranks / (len(values) - 1)).round().clip(0, 100)]


def twins(pictures: Sequence[Kept]) -> list[int]:
    """The group of near duplicates that each belongs to, counted from 1; 0 where it has none."""
    numbers = [0] * len(pictures)
    groups = (group for group in alike([each.measures.look for each in pictures]) if len(group) > 1)
    for count, group in enumerate(groups, start=1):
        for member in group:
            numbers[member] = count
    return numbers


def quality_problems(pictures: Sequence[Measured], held_out: Sequence[Measured] = ()) -> list[Problem]:
    """All that the pixels tell; ``held_out`` are pictures that are measured and must not be trained on."""
    found = [*_soft(pictures), *_blocky(pictures), *_bordered(pictures), *_copies(pictures)]
    return [*found, *_leaked(pictures, held_out), *_marked(pictures), *_apart(pictures)]


def _soft(pictures: Sequence[Measured]) -> Iterator[Problem]:
    if len(pictures) < FEWEST:
        return
    places = percentiles([each.kept.measures for each in pictures])
    middle = float(np.median([each.kept.measures.sharpness for each in pictures]))
    for each, place in zip(pictures, places, strict=True):
        own = each.kept.measures.sharpness
        if own * SOFT < middle:
            message = f"Softer than {100 - place} % of the set: sharpness {own:.0f}, the middle one has {middle:.0f}"
            hint = "A LoRA learns blur first: replace it, or leave it out. A soft background alone is no fault."
            yield problem(each.path, "blurred", "warning", message, hint, "exclude")


def _blocky(pictures: Sequence[Measured]) -> Iterator[Problem]:
    for each in pictures:
        strength = each.kept.measures.blocks
        if strength > HEAVY:
            message = f"Heavy JPEG blocks: steps every 8 pixels stand out {strength:.1f} times"
            hint = "Find the original: a LoRA learns the blocks too. Saving it again as PNG keeps them."
            yield problem(each.path, "jpeg-blocks", "warning", message, hint, "exclude")


def _bordered(pictures: Sequence[Measured]) -> Iterator[Problem]:
    for each in pictures:
        if not each.kept.measures.has_border or each.cropped:
            continue
        sides = zip(("left", "top", "right", "bottom"), each.kept.measures.border, strict=True)
        told = ", ".join(f"{part:.0%} at the {side}" for side, part in sides if part)
        hint = "Crop it: bars in a few pictures come back in samples."
        yield problem(each.path, "border", "warning", f"Bars of one colour: {told}", hint, "crop")


def crop_without_border(border: tuple[float, float, float, float], width: int, height: int) -> tuple[int, ...]:
    """Left, top, width and height of what lies inside the bars, in the picture's pixels; a hair inside of them."""
    margin = max(width, height) / 512
    left, top, right, bottom = (
        int(np.ceil(part * side + margin)) if part else 0
        for part, side in zip(border, (width, height, width, height), strict=True)
    )
    return left, top, max(1, width - left - right), max(1, height - top - bottom)


def _copies(pictures: Sequence[Measured]) -> Iterator[Problem]:
    """Pictures that are another one again: the same bytes, or nearly the same colours everywhere."""
    first: dict[bytes, Measured] = {}
    for each in pictures:
        other = first.setdefault(each.kept.content, each)
        if other is not each and other.path != each.path:
            message = f"The same file as {other.name}, byte by byte"
            hint = "Leave one out: it is learned twice as strongly. Repeats say that more clearly."
            yield problem(each.path, "copy", "warning", message, hint, "exclude")
    groups: dict[int, list[Measured]] = defaultdict(list)
    for each, group in zip(pictures, twins([each.kept for each in pictures]), strict=True):
        if group:
            groups[group].append(each)
    for members in groups.values():
        best = max(members, key=_worth)
        for each in members:
            if each is not best and each.kept.content != best.kept.content and first[each.kept.content] is each:
                message = f"Nearly the same picture as {best.name}, one of {len(members)} that are alike"
                hint = "Keep the best of them: what is shown often is learned by heart."
                yield problem(each.path, "near-copy", "warning", message, hint, "exclude")


def _worth(each: Measured) -> tuple[int, float, float]:
    """Which of several alike is the best: the largest, then the one with fewer JPEG blocks, then the sharpest."""
    return each.width * each.height, -round(each.kept.measures.blocks, 1), each.kept.measures.sharpness


def _leaked(pictures: Sequence[Measured], held_out: Sequence[Measured]) -> Iterator[Problem]:
    if not pictures or not held_out:
        return
    table = np.stack([each.kept.measures.look for each in held_out])
    for each in pictures:
        distances = np.abs(table - each.kept.measures.look).mean(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] < NEAR:
            message = f"Nearly the same as the held-out picture {held_out[nearest].name}"
            hint = "Take it out of one of the two: a picture that was trained on measures nothing."
            yield problem(each.path, "held-out-copy", "warning", message, hint, "exclude")


def _marked(pictures: Sequence[Measured]) -> Iterator[Problem]:
    """The same lines at the same place near the edges of many pictures: perhaps a watermark, a logo, a date.

    The middle does not count: the eyes of portraits stand at the same place too.
    """
    groups: dict[float, list[Measured]] = defaultdict(list)
    seen: set[int] = set()
    for each, twin in zip(pictures, twins([each.kept for each in pictures]), strict=True):
        width, height = each.kept.measures.shape
        if each.kept.measures.has_border:
            continue  # where a bar ends is the same line too
        if not twin or twin not in seen:  # one of a series: the rest share all of their lines
            groups[round(width / max(1, height), 1)].append(each)
        seen.add(twin)
    for group in groups.values():
        if len(group) < MARKED:
            continue
        for bits in ("lighter", "darker"):
            table = np.stack([np.unpackbits(getattr(each.kept.measures, bits)) for each in group])
            common = (table.mean(axis=0) >= MARKED_SHARE).reshape(CELLS, CELLS)
            common[OUTER:-OUTER, OUTER:-OUTER] = False
            if int(common.sum()) < MARKED_CELLS:
                continue
            cells = np.flatnonzero(common.reshape(-1))
            having = [each for each, own in zip(group, table, strict=True) if own[cells].mean() >= MARKED_SHARE]
            message = f"There may be a mark {_where(common)}: {len(having)} pictures have the same lines there"
            hint = (
                "Look whether it is a watermark, a logo or a date: it would be learned. Crop it off, or paint it out."
            )
            yield problem(having[0].path.parent, "mark", "warning", message, hint)
            return


def _where(cells: NDArray[np.bool_]) -> str:
    """Where in the picture, in words."""
    down, right = (float(places.mean()) / CELLS for places in np.nonzero(cells))
    vertical = "top" if down < 1 / 3 else "bottom" if down > 2 / 3 else ""
    horizontal = "left" if right < 1 / 3 else "right" if right > 2 / 3 else ""
    place = " ".join(part for part in (vertical, horizontal) if part)
    return f"at the {place}" if place else "near the edges"


_LOOKS = (
    ("light", "darker", "lighter"),
    ("contrast", "flatter", "richer in contrast"),
    ("colour", "paler", "more colourful"),
)


def _apart(pictures: Sequence[Measured]) -> Iterator[Problem]:
    """Pictures whose light, contrast or colour is far from what all others have: perhaps of another style."""
    own = [each for each in pictures if not each.regularization]
    if len(own) < APART_FEWEST:
        return
    table = np.array([[getattr(each.kept.measures, name) for name, _, _ in _LOOKS] for each in own])
    middle = np.median(table, axis=0)
    # At least some spread: in a set that is nearly uniform a little is not yet apart.
    spread = np.maximum(1.4826 * np.median(np.abs(table - middle), axis=0), 6.0)
    scores = (table - middle) / spread
    for each, score in zip(own, scores, strict=True):
        words = [
            more if value > 0 else less
            for value, (_, less, more) in zip(score, _LOOKS, strict=True)
            if abs(value) > APART
        ]
        if words:
            message = f"Stands apart from the set: much {' and '.join(words)} than the others"
            hint = "Right for a subject seen in many ways; for a style, look whether it belongs."
            yield problem(each.path, "apart", "note", message, hint, "exclude")
