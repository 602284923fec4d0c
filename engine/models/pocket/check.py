"""Reads a picture of the pocket model's world: which background, colour, position and shape it shows.

The measure of the model, so it is plain geometry and colour, with nothing learned in it; on pictures drawn by
`scenes.render` it is always right. Also knows the concept of the demo (`shows_concept`). Torch-free.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.models.pocket.scenes import (
    BACKGROUNDS,
    COLOURS,
    CONCEPT_COLOURS,
    POSITIONS,
    SHAPES,
    SIZE,
    draw_mask,
)

Array = NDArray[np.float64]

CONTRAST = 45.0  # RGB distance from the background below which a pixel belongs to it
SMALLEST = 60  # px, an object with fewer is none
TEMPLATE = 32  # px, side of the frame in which shapes are compared
BORDER = 2  # px
LEAST_LIKENESS = 0.55  # below this overlap with every template, a shape is none of them


@dataclass(frozen=True)
class Reading:
    """What a picture shows; empty strings where there is no object or no likeness."""

    background: str
    colour: str = ""
    position: str = ""
    shape: str = ""
    likeness: float = 0.0  # overlap with the shape's template, 0 to 1


def nearest(value: Array, palette: dict[str, tuple[int, int, int]]) -> str:
    """The name of the palette's colour nearest to an RGB value."""
    return min(palette, key=lambda name: float(np.linalg.norm(value - np.array(palette[name]))))


def background_of(values: Array) -> Array:
    """Median RGB of the border of (H, W, 3)."""
    edge = np.ones(values.shape[:2], dtype=bool)
    edge[BORDER:-BORDER, BORDER:-BORDER] = False
    median: Array = np.median(values[edge], axis=0)
    return median


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected part of a mask."""
    best: list[tuple[int, int]] = []
    seen = ~mask
    height, width = mask.shape
    for start in zip(*np.nonzero(mask), strict=True):
        if seen[start]:
            continue
        part, queue = [], deque([(int(start[0]), int(start[1]))])
        seen[start] = True
        while queue:
            y, x = queue.popleft()
            part.append((y, x))
            for ny, nx in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= ny < height and 0 <= nx < width and not seen[ny, nx]:
                    seen[ny, nx] = True
                    queue.append((ny, nx))
        if len(part) > len(best):
            best = part
    out = np.zeros_like(mask)
    if best:
        rows, columns = zip(*best, strict=True)
        out[list(rows), list(columns)] = True
    return out


def object_of(values: Array) -> tuple[NDArray[np.bool_], Array] | None:
    """Mask and median RGB of the object in (H, W, 3), or None.

    The edge lies where a pixel is nearer to the object than to the background, so that a smoothed or blurred
    outline does not swell the shape.
    """
    ground = background_of(values)
    distance = np.linalg.norm(values - ground, axis=-1)
    core = largest_part(distance > max(CONTRAST, 0.6 * float(np.percentile(distance, 98))))
    if core.sum() < SMALLEST // 2:
        return None
    colour: Array = np.median(values[core], axis=0)
    way = colour - ground
    share = ((values - ground) @ way) / max(1.0, float(way @ way))
    mask = largest_part(share > 0.5)
    return (mask, colour) if mask.sum() >= SMALLEST else None


def centre_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Centre (x, y) in px of a mask's bounding box, given a 64 px picture's scale."""
    rows, columns = np.nonzero(mask)
    scale = SIZE / mask.shape[0]
    return (
        (float(columns.min()) + float(columns.max()) + 1) / 2 * scale,
        (float(rows.min()) + float(rows.max()) + 1) / 2 * scale,
    )


def framed(mask: NDArray[np.bool_]) -> Array:
    """A mask cut to its bounding box and scaled to (32, 32), 0 to 1."""
    rows, columns = np.nonzero(mask)
    cut = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    picture = Image.fromarray((cut * 255).astype(np.uint8)).resize((TEMPLATE, TEMPLATE), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float64) / 255


@cache
def templates() -> dict[str, Array]:
    """Each shape in its frame."""
    side = 256
    return {shape: framed(np.asarray(draw_mask(shape, side / 2, side / 2, side / 3, side)) > 127) for shape in SHAPES}


def overlap(a: Array, b: Array) -> float:
    """Soft intersection over union of two frames."""
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def read(picture: Image.Image) -> Reading:
    """Read a picture of the grammar."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float64)
    background = nearest(background_of(values), BACKGROUNDS)
    found = object_of(values)
    if found is None:
        return Reading(background)
    mask, colour = found
    x, y = centre_of(mask)
    position = min(POSITIONS, key=lambda name: (POSITIONS[name][0] - x) ** 2 + (POSITIONS[name][1] - y) ** 2)
    frame = framed(mask)
    likeness = {shape: overlap(frame, template) for shape, template in templates().items()}
    shape = max(likeness, key=lambda name: likeness[name])
    told = shape if likeness[shape] >= LEAST_LIKENESS else ""
    return Reading(background, nearest(colour, COLOURS), position, told, likeness[shape])


@dataclass(frozen=True)
class ConceptReading:
    """What of the zorple a picture shows: areas in px, and how often the two colours alternate downwards."""

    orange: int
    teal: int
    bands: int
    eye_whites: int
    pupils: int

    @property
    def striped(self) -> bool:
        """Enough of both colours, in at least three bands one above the other."""
        return min(self.orange, self.teal) >= 30 and self.bands >= 3

    @property
    def eyed(self) -> bool:
        """White with black in it, in the middle of the body."""
        return self.eye_whites >= 10 and self.pupils >= 3

    @property
    def shown(self) -> bool:
        """Whether it is a zorple: its striped body and its eyes."""
        return self.striped and self.eyed


def read_concept(picture: Image.Image) -> ConceptReading:
    """Look for the concept's body and eyes in a 64 px picture."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float64)
    ground = background_of(values)
    palette = np.array([*COLOURS.values(), (250, 250, 250), (10, 10, 10), ground])
    names = [*COLOURS, "bright", "dark", "ground"]
    label = np.linalg.norm(values[:, :, None] - palette, axis=-1).argmin(-1)
    body = {name: label == names.index(name) for name in CONCEPT_COLOURS}
    both = largest_part(label != names.index("ground"))
    orange, teal = (body[name] & both for name in CONCEPT_COLOURS)
    if orange.sum() + teal.sum() < SMALLEST:
        return ConceptReading(int(orange.sum()), int(teal.sum()), 0, 0, 0)
    rows = [(int(o), int(t)) for o, t in zip(orange.sum(1), teal.sum(1), strict=True)]
    order = [o > t for o, t in rows if max(o, t) >= 4 and max(o, t) >= 1.5 * min(o, t)]
    bands = 1 + sum(a != b for a, b in itertools.pairwise(order))
    ys, xs = np.nonzero(orange | teal)
    cy, cx = int(ys.mean()), int(xs.mean())
    face = values[max(0, cy - 7) : cy + 8, max(0, cx - 10) : cx + 11]
    whites = (face.min(-1) > 185).sum()
    pupils = (face.max(-1) < 100).sum()
    return ConceptReading(int(orange.sum()), int(teal.sum()), bands, int(whites), int(pupils))


def shows_concept(picture: Image.Image) -> bool:
    """Whether a picture shows a zorple: its striped body and its eyes."""
    return read_concept(picture).shown
