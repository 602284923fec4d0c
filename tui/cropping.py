"""A crop being made: a box in a picture that is moved, sized and given a shape, and never leaves the picture.

Pure functions of whole pixels; boxes are left, top, width and height, of the picture turned by its EXIF rotation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.config import BucketConfig
from engine.dataset.buckets import bucket_sizes
from engine.dataset.sidecar import Crop
from engine.errors import ConfigError

LEAST = 16
"""Pixels that a side keeps, where the picture has as many."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """A shape that boxes are held to: width to height; a ``ratio`` of 0 leaves them free."""

    name: str
    ratio: float = 0.0


FREE, SQUARE = Shape("free"), Shape("square", 1.0)


def shapes_for(picture: Size, resolution: int, buckets: BucketConfig) -> tuple[Shape, ...]:
    """Free, square, and the buckets' shapes, those nearest to the picture's own first."""
    try:
        sizes = bucket_sizes(resolution**2, buckets.min_side, buckets.max_side, buckets.step)
    except ConfigError:  # who starts a run is told
        sizes = ()
    if not buckets.enabled:
        sizes = ()
    own = math.log(picture[0] / picture[1])
    ordered = sorted(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - own), size))
    return (FREE, SQUARE, *(Shape(f"{w}x{h}", w / h) for w, h in ordered if w != h))


def whole(picture: Size) -> Crop:
    """All of the picture."""
    return (0, 0, *picture)


def moved(box: Crop, picture: Size, right: int, down: int) -> Crop:
    """The box as it is, elsewhere; up to the picture's edge."""
    left, top, width, height = box
    return (
        max(0, min(left + right, picture[0] - width)),
        max(0, min(top + down, picture[1] - height)),
        width,
        height,
    )


def resized(box: Crop, picture: Size, wider: int, higher: int, shape: Shape) -> Crop:
    """Another size, the upper left corner where it is as long as there is room; a shape is kept."""
    left, top, width, height = box
    if shape.ratio and wider:
        size = _shaped(width + wider, (width + wider) / shape.ratio, picture, shape)
    elif shape.ratio:
        size = _shaped((height + higher) * shape.ratio, height + higher, picture, shape)
    else:
        size = _held(width + wider, picture[0]), _held(height + higher, picture[1])
    return moved((left, top, *size), picture, 0, 0)


def scaled(box: Crop, picture: Size, factor: float, shape: Shape) -> Crop:
    """Larger or smaller about its middle; it moves where the picture ends, and stops where that has no more."""
    left, top, width, height = box
    # At least a pixel a side: a small box grows as well.
    grown = [
        side * factor if abs(side * factor - side) >= 1 else side + math.copysign(1, factor - 1) for side in box[2:]
    ]
    ratio = Shape(shape.name, shape.ratio or width / height)
    return _about((left + width / 2, top + height / 2), _shaped(grown[0], grown[1], picture, ratio), picture)


def shaped(box: Crop, picture: Size, shape: Shape) -> Crop:
    """The box in another shape: about the same middle, of the same area as far as the picture has room."""
    if not shape.ratio:
        return box
    left, top, width, height = box
    side = math.sqrt(width * height / shape.ratio)
    return _about((left + width / 2, top + height / 2), _shaped(side * shape.ratio, side, picture, shape), picture)


def drawn(start: Size, end: Size, picture: Size, shape: Shape) -> Crop:
    """A box between two points, as the mouse draws it; with a shape as wide as drawn."""
    (x, y), (to_x, to_y) = start, end
    width, height = _held(abs(to_x - x), picture[0]), _held(abs(to_y - y), picture[1])
    if shape.ratio:
        width, height = _shaped(width, width / shape.ratio, picture, shape)
    left, top = (x - width if to_x < x else x), (y - height if to_y < y else y)
    return moved((left, top, width, height), picture, 0, 0)


def _held(side: float, most: int) -> int:
    return max(min(LEAST, most), min(round(side), most))


def _shaped(width: float, height: float, picture: Size, shape: Shape) -> Size:
    """Whole pixels of about that size and of the shape, that the picture has room for."""
    width, height = max(1.0, width), max(1.0, height)
    most = min(1.0, picture[0] / width, picture[1] / height)
    least = max(LEAST / width, LEAST / height)
    scale = most if least > most else max(least, 1.0 if most >= 1.0 else most)
    wide = _held(width * scale, picture[0])
    return wide, max(1, min(round(wide / shape.ratio), picture[1]))


def _about(middle: tuple[float, float], size: Size, picture: Size) -> Crop:
    left, top = round(middle[0] - size[0] / 2), round(middle[1] - size[1] / 2)
    return moved((left, top, *size), picture, 0, 0)
