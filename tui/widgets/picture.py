"""Pictures as cells: two colours and a quadrant character for every 2 x 2 pixels, or a grey ramp of ASCII.

Quadrant blocks are in every monospace font and show twice the horizontal detail of half blocks. The two colours of
a cell are the best split of its four pixels: of the eight ways to divide them, the one with the least squared error
to the means of its two parts. Half blocks are for fonts that draw quadrants badly. Decoding and splitting run in a
small pool, off the screen's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.color import Color
from rich.style import Style

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Manner = Literal["quadrants", "halves", "ascii"]
"""What cells are made of."""

# Bits of a pattern: 1 top left, 2 top right, 4 bottom left, 8 bottom right.
_QUADRANTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"
_RAMP = " .:-=+*#%@"
_SPLITS = tuple(tuple((pattern >> bit) & 1 for bit in range(4)) for pattern in range(8))
"""The eight ways to divide four pixels; the other eight are the same with the colours swapped."""

MAX_PIXELS = 64_000_000
FLAT = 48.0
"""Squared error (sum over a block's four pixels and three channels) that is not worth a second colour."""

Piece = tuple[str, int, int]
"""Characters with one pair of colours, each colour as 0xRRGGBB; -1 is the widget's own."""


@dataclass(frozen=True)
class PictureCells:
    """A picture as rows of pieces, ``columns`` x ``rows`` cells; ``problem`` says why there is none."""

    columns: int
    rows: int
    lines: tuple[tuple[Piece, ...], ...]
    problem: str = ""


def fit(width: int, height: int, columns: int, rows: int) -> tuple[int, int]:
    """Cells that a picture of ``width`` x ``height`` pixels takes in a box, cells being twice as high as wide."""
    scale = min(columns / width, rows * 2 / height)
    return max(1, min(columns, round(width * scale))), max(1, min(rows, round(height * scale / 2)))


def load_picture(path: Path, columns: int, rows: int, ascii_only: bool = False) -> PictureCells:
    """Decode one of our own PNG samples and turn it into cells; never raises for a broken or missing file."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return PictureCells(0, 0, (), f"{picture.width} x {picture.height} pixels are too many to show")
            return _cells(picture.convert("RGB"), columns, rows, "ascii" if ascii_only else "quadrants")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        return PictureCells(0, 0, (), f"cannot be shown: {type(err).__name__}")


def picture_cells(pixels: NDArray[np.uint8], columns: int, rows: int, manner: Manner) -> PictureCells:
    """Turn uint8 RGB ``pixels`` (height, width, 3) into cells that fit a box."""
    from PIL import Image

    return _cells(Image.fromarray(pixels), columns, rows, manner)


def _cells(picture: Image, columns: int, rows: int, manner: Manner) -> PictureCells:
    import numpy as np
    from PIL import Image

    size = fit(picture.width, picture.height, columns, rows)
    across = 2 if manner == "quadrants" else 1
    down = 1 if manner == "ascii" else 2
    small = np.asarray(picture.resize((size[0] * across, size[1] * down), Image.Resampling.LANCZOS))
    return PictureCells(*size, _LINES[manner](small))


def split_quadrants(
    pixels: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Best two-colour split of every 2 x 2 block.

    Args:
        pixels: shape (2 * rows, 2 * columns, 3).

    Returns:
        pattern (rows, columns) in 0..7, foreground and background (rows, columns, 3).
    """
    import numpy as np

    masks = np.array(_SPLITS, dtype=np.float32)
    rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
    blocks = pixels.reshape(rows, 2, columns, 2, 3).transpose(0, 2, 1, 3, 4).reshape(rows, columns, 4, 3)
    values = blocks.astype(np.float32)
    total = values.sum(axis=2)
    front = np.einsum("pk,rckd->rcpd", masks, values)
    back = total[:, :, None, :] - front
    count = masks.sum(axis=1)
    # Maximising the explained part |S1|^2 / n1 + |S0|^2 / n0 minimises the squared error.
    gain = (front**2).sum(-1) / np.maximum(count, 1) + (back**2).sum(-1) / (4 - count)
    gain[..., 1:] -= FLAT  # a split must be worth it: flat areas stay one colour and merge into few bytes
    best = gain.argmax(axis=2)
    take = best[:, :, None, None]
    size = count[best][:, :, None]
    foreground = np.take_along_axis(front, take, 2)[:, :, 0] / np.maximum(size, 1)
    background = np.take_along_axis(back, take, 2)[:, :, 0] / (4 - size)
    return best, foreground.astype(np.uint8), background.astype(np.uint8)


def _quadrant_lines(pixels: NDArray[np.uint8]) -> tuple[tuple[Piece, ...], ...]:
    import numpy as np

    pattern, foreground, background = split_quadrants(pixels)
    front, back = _packed(foreground), _packed(background)
    front = np.where(pattern == 0, back, front)
    text = ["".join([_QUADRANTS[cell] for cell in row]) for row in pattern.tolist()]
    return tuple(_pieces(line, front[row], back[row]) for row, line in enumerate(text))


def _half_lines(pixels: NDArray[np.uint8]) -> tuple[tuple[Piece, ...], ...]:
    front, back = _packed(pixels[0::2]), _packed(pixels[1::2])
    text = "▀" * front.shape[1]
    return tuple(_pieces(text, front[row], back[row]) for row in range(front.shape[0]))


def _pieces(text: str, front: NDArray[np.int64], back: NDArray[np.int64]) -> tuple[Piece, ...]:
    """One line's cells, neighbours of the same two colours together."""
    import numpy as np

    edges = np.flatnonzero(
        np.diff(front, prepend=-1, append=-1).astype(bool) | np.diff(back, prepend=-1, append=-1).astype(bool)
    ).tolist()
    return tuple((text[start:end], int(front[start]), int(back[start])) for start, end in pairwise(edges))


def _packed(colors: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Colours as 0xRRGGBB with 6 bits a channel: a fifth fewer bytes over a slow link, no visible loss."""
    import numpy as np

    reduced = ((colors & 0xFC) | (colors >> 6)).astype(np.int64)
    packed: NDArray[np.int64] = (reduced[..., 0] << 16) | (reduced[..., 1] << 8) | reduced[..., 2]
    return packed


def _ascii_lines(pixels: NDArray[np.uint8]) -> tuple[tuple[Piece, ...], ...]:
    import numpy as np

    light = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    level = np.minimum((light * (len(_RAMP) / 256)).astype(np.int64), len(_RAMP) - 1)
    return tuple((("".join([_RAMP[cell] for cell in row]), -1, -1),) for row in level.tolist())


_LINES = {"quadrants": _quadrant_lines, "halves": _half_lines, "ascii": _ascii_lines}


@lru_cache(8192)
def piece_style(front: int, back: int) -> Style:
    """The style of a piece's two colours."""
    return Style(color=_color(front), bgcolor=_color(back))


def _color(packed: int) -> Color:
    return Color.from_rgb(packed >> 16, packed >> 8 & 0xFF, packed & 0xFF)
