"""What is drawn into a picture before it becomes cells or pixels: what a crop cuts off, its frame, the mask.

Pure functions of arrays (height, width, 3), uint8; the picture given is never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Crop = tuple[float, float, float, float]
"""Left, top, right and bottom, as parts of width and height."""

_DARK = 0.3
_HIDDEN = 0.45
"""Part of its own light that a picture keeps where its mask is black; the rest is red."""
_RED = (200.0, 20.0, 60.0)


@dataclass(frozen=True)
class MaskShown:
    """A mask to draw: its file, whether it is that picture's alpha channel, and the picture's size in pixels."""

    path: Path
    alpha: bool
    picture: tuple[int, int]


def darkened(pixels: NDArray[np.uint8], crop: Crop | None) -> NDArray[np.uint8]:
    """A copy with everything outside of ``crop`` dark."""
    import numpy as np

    if crop is None or crop == (0.0, 0.0, 1.0, 1.0):
        return pixels
    left, top, right, bottom = _edges(pixels, crop)
    dark = (pixels * _DARK).astype(np.uint8)
    dark[top:bottom, left:right] = pixels[top:bottom, left:right]
    return dark


def framed(pixels: NDArray[np.uint8], crop: Crop | None, columns: int) -> NDArray[np.uint8]:
    """A copy with a line around ``crop`` that is seen on any ground: white and black by turns.

    Args:
        pixels: the picture.
        crop: what is framed.
        columns: cells that the picture will take; the line is half a cell wide.
    """
    import numpy as np

    if crop is None:
        return pixels
    left, top, right, bottom = _edges(pixels, crop)
    thick = max(1, round(pixels.shape[1] / max(1, 2 * columns)))
    inside = np.zeros(pixels.shape[:2], dtype=bool)
    inside[top:bottom, left:right] = True
    inside[top + thick : bottom - thick, left + thick : right - thick] = False
    down, across = np.indices(pixels.shape[:2])
    light = ((down + across) // (4 * thick)) % 2 == 0
    line = np.where(light[:, :, None], np.uint8(255), np.uint8(0))
    return np.where(inside[:, :, None], line, pixels)


def masked(pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A copy that is red where ``mask`` (height, width) is black: there the loss counts little or nothing."""
    import numpy as np

    if mask is None:
        return pixels
    seen = mask.astype(np.float32)[:, :, None] / 255
    hidden = pixels * _HIDDEN + np.array(_RED, dtype=np.float32) * (1 - _HIDDEN)
    return (pixels * seen + hidden * (1 - seen)).astype(np.uint8)


def windowed(pixels: NDArray[np.uint8], window: Crop | None) -> NDArray[np.uint8]:
    """The part of ``pixels`` that is shown; at least one of them."""
    if window is None:
        return pixels
    left, top, right, bottom = _edges(pixels, window)
    left, top = min(left, pixels.shape[1] - 1), min(top, pixels.shape[0] - 1)
    return pixels[top : max(bottom, top + 1), left : max(right, left + 1)]


def _edges(pixels: NDArray[np.uint8], crop: Crop) -> tuple[int, int, int, int]:
    height, width = pixels.shape[:2]
    left, top, right, bottom = (
        round(part * side) for part, side in zip(crop, (width, height, width, height), strict=True)
    )
    return left, top, right, bottom
