"""The part of a picture that is trained on, where the user chose one: whether it fits, and what it leaves.

Pure functions of numbers. A crop is left, top, width and height in pixels of the picture as it is shown, turned by
its EXIF rotation; it comes before everything else: bucket and scale are those of what it leaves.
"""

from __future__ import annotations

from engine.dataset.sidecar import Crop


def fits(crop: Crop, width: int, height: int) -> bool:
    """Whether a crop lies inside of a picture of that size."""
    left, top, wide, high = crop
    return left + wide <= width and top + high <= height


def used_crop(crop: Crop | None, width: int, height: int) -> Crop | None:
    """The crop that a picture of that size is trained with: none where it does not fit, or leaves all of it."""
    if crop is None or not fits(crop, width, height) or crop == (0, 0, width, height):
        return None
    return crop


def trained_size(crop: Crop | None, width: int, height: int) -> tuple[int, int]:
    """Width and height of what is trained on of a picture of that size."""
    used = used_crop(crop, width, height)
    return (width, height) if used is None else used[2:]
