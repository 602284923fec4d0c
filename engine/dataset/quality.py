"""How good one picture is, told by its pixels: sharpness, JPEG blocks, borders, light and colour, and how it looks.

Comes in: what a decoder's :meth:`~engine.dataset.decoder.Decoder.look` returns. Goes out: :class:`Measures`, plain
numbers and small arrays that :mod:`engine.dataset.quality_store` keeps. What they mean within a set is said by
:mod:`engine.dataset.quality_check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dataset.decoder import Look
from engine.dataset.likeness import look_of

SIDE = 512
"""Pixels of the small picture, on which sharpness and borders are measured: pictures of all sizes compare."""

PATCH = 512
"""Pixels of the middle at full size, on which JPEG blocks are looked for: scaling would wash them out."""

CELLS = 64
"""Side of the grid on which marks at the same place of several pictures are looked for."""

FLAT = 8.0
"""Most that the pixels of a uniform bar differ, of 255: JPEG leaves some noise."""

LEAST_BAR, MOST_BAR = 0.02, 0.45
"""Part of a side that a bar takes at least, and at most."""

STEP = 12.0
"""A bar ends where most pixels of the next line differ from it by more: a plain background ends gradually."""

BLOCKS_OF_DIVISOR = 1.6 / 57.6
"""What a JPEG's mean divisor says of its blocks: quality 50 shows as 1.6, 20 as 4, as its pixels do."""

STRONG = 6.0
"""Contrast of a cell with its surroundings from which it counts as a line, of 255."""

Bits = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Measures:
    """What was measured of one picture.

    Attributes:
        sharpness: variance of the Laplacian of the small grey picture; means something within a set only.
        blocks: how much steps between pixels stand out every 8 pixels; 1 where nothing does.
        light, contrast, colour: mean and spread of the grey values, and mean strength of colour, 0 to 255.
        edges: mean colour of the picture's outer ring, red, green and blue, and how much that ring varies.
        border: uniform bars at left, top, right and bottom, as parts of the side.
        look: mean colours in a grid, see :mod:`engine.dataset.likeness`.
        lighter, darker: cells of a grid that stand out against what is around them, as packed bits.
        shape: the small picture's width and height.
        transparent: share of the picture that is.
        turned: by its EXIF data, 1 (not) to 8.
        cmyk: its colours are inks.
    """

    sharpness: float
    blocks: float
    light: float
    contrast: float
    colour: float
    edges: tuple[float, float, float, float]
    border: tuple[float, float, float, float]
    look: NDArray[np.float32]
    lighter: Bits
    darker: Bits
    shape: tuple[int, int]
    transparent: float = 0.0
    turned: int = 1
    cmyk: bool = False

    @property
    def has_border(self) -> bool:
        """Whether a bar was found at any side."""
        return max(self.border) > 0


def measure(seen: Look) -> Measures:
    """Measure a picture that was looked at."""
    small = seen.small
    grey = _grey(small)
    lighter, darker = _outstanding(grey)
    strongest, weakest = _over_colours(np.maximum, small), _over_colours(np.minimum, small)
    return Measures(
        sharpness=sharpness(grey),
        blocks=max(1.0, blocks(_grey(seen.patch)), BLOCKS_OF_DIVISOR * seen.quantised),
        light=float(grey.mean()),
        contrast=float(grey.std()),
        colour=float(strongest.mean()) - float(weakest.mean()),
        edges=_edges(small),
        border=border(small),
        look=look_of(small).round(),
        lighter=lighter,
        darker=darker,
        shape=(small.shape[1], small.shape[0]),
        transparent=seen.transparent,
        turned=seen.info.turned,
        cmyk=seen.info.mode == "CMYK",
    )


def sharpness(grey: NDArray[np.float32]) -> float:
    """Variance of the Laplacian; 0 for what is too small to have one."""
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var())


def blocks(grey: NDArray[np.float32]) -> float:
    """How much larger steps between neighbours are every 8 pixels than elsewhere, across and down; 1 for no blocks.

    A picture without texture has nothing to hide blocks in, and none that disturb: 1.
    """
    ratios = [_every_eighth(np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)) for axis in (0, 1)]
    return float(min(ratios))


def _every_eighth(steps: NDArray[np.floating]) -> float:
    count = len(steps) // 8
    if count < 8:
        return 1.0
    by_place = steps[: count * 8].reshape(count, 8).mean(axis=0)
    usual = float(np.median(by_place))
    # Blocks begin at multiples of 8: the step before each is the last of eight. Where nothing at all happens between
    # them it is a drawing of squares, no JPEG.
    return min(float(by_place[7]) / max(usual, 0.25), 50.0) if usual > 0.01 else 1.0


def border(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Uniform bars at left, top, right and bottom, as parts of the side; 0 where there is none."""
    values = pixels.astype(np.float32)
    top, bottom = _bar(values), _bar(values[::-1])
    middle = values[top : len(values) - bottom] if top + bottom < len(values) else values
    across = middle.transpose(1, 0, 2)
    left, right = _bar(across), _bar(across[::-1])
    height, width = pixels.shape[:2]
    return left / width, top / height, right / width, bottom / height


def _bar(lines: NDArray[np.float32]) -> int:
    """Lines of one colour from the first on, where they end at once and nearly everywhere."""
    most, least = int(len(lines) * MOST_BAR), max(2, int(LEAST_BAR * len(lines)))
    colour = lines[0].mean(axis=0)
    if float(np.abs(lines[:least] - colour).max()) > FLAT:
        return 0
    apart = _over_colours(np.maximum, np.abs(lines[: most + 2] - colour))
    plain = apart.max(axis=1) <= FLAT
    count = int(np.argmin(plain)) if not plain.all() else len(plain)
    if not least <= count <= most:
        return 0
    # Scaling mixes the line at the boundary: the one behind it counts.
    beyond = apart[min(count + 1, len(apart) - 1)]
    return count if float((beyond > STEP).mean()) > 0.8 else 0


def _edges(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Mean colour of the outer tenth, and how much its grey varies: plain backgrounds show there."""
    height, width = pixels.shape[:2]
    deep, wide = max(1, height // 10), max(1, width // 10)
    ring = np.concatenate(
        [part.reshape(-1, 3) for part in (pixels[:deep], pixels[-deep:], pixels[:, :wide], pixels[:, -wide:])]
    )
    red, green, blue = (float(ring[:, colour].mean()) for colour in range(3))
    return red, green, blue, float(_grey(ring).std())


def _outstanding(grey: NDArray[np.float32]) -> tuple[Bits, Bits]:
    """Cells lighter and darker than what is around them, as bits of a grid of ``CELLS`` x ``CELLS``."""
    rows = np.linspace(0, grey.shape[0], CELLS + 1).astype(int)
    columns = np.linspace(0, grey.shape[1], CELLS + 1).astype(int)
    total = np.pad(grey.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[rows[1:]][:, columns[1:]] - total[rows[:-1]][:, columns[1:]]
    sums += total[rows[:-1]][:, columns[:-1]] - total[rows[1:]][:, columns[:-1]]
    cells = sums / np.maximum(np.diff(rows)[:, None] * np.diff(columns)[None], 1)
    padded = np.pad(cells, 2, mode="edge")
    around = sum(padded[down : down + CELLS, right : right + CELLS] for down in range(5) for right in range(5)) / 25
    apart = cells - around
    return np.packbits(apart > STRONG), np.packbits(apart < -STRONG)


def _over_colours(largest: np.ufunc, pixels: NDArray[Any]) -> NDArray[Any]:
    """The largest (or smallest) of three colours; much faster than along an axis of three."""
    result: NDArray[Any] = largest(largest(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return result


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey: NDArray[np.float32] = pixels.astype(np.float32) @ weights
    return grey
