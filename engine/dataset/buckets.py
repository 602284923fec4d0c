"""Which size a picture is trained at: its bucket, the size it is scaled to, and the crop.

Pure functions of the picture's size and the settings. The arithmetic follows kohya sd-scripts to the pixel, so that
a dataset moved from there is grouped as before. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from engine.config import BucketConfig
from engine.draws import python_random
from engine.errors import ConfigError, DatasetError

_PATCH = 16
"""The autoencoder's factor 8 times the transformer's patch of 2: every side is a multiple of it."""


@dataclass(frozen=True)
class Placement:
    """How one picture becomes pixels: scaled to ``resized``, then the bucket cut out at (``left``, ``top``)."""

    bucket_w: int
    bucket_h: int
    resized_w: int
    resized_h: int
    left: int
    top: int


def place(width: int, height: int, resolution: int | tuple[int, int], config: BucketConfig) -> Placement:
    """Choose the bucket for a picture of ``width`` x ``height`` and crop at the centre.

    Args:
        width: pixels after the EXIF rotation.
        height: pixels after the EXIF rotation.
        resolution: side of a square, or (width, height), whose area pictures are brought to.
        config: the buckets' settings.

    Raises:
        ConfigError: the settings allow no bucket at all.
        DatasetError: the picture is too small for any bucket (only with ``no_upscale``).
    """
    if width < 1 or height < 1:
        raise DatasetError("A picture without pixels", f"its size is {width} x {height}", "Remove it.")
    wanted = (resolution, resolution) if isinstance(resolution, int) else resolution
    if not config.enabled:
        bucket = _only_bucket(wanted)
        resized = _cover(width, height, bucket)
    elif config.no_upscale:
        bucket, resized = _shrink_only(width, height, wanted[0] * wanted[1], config.step)
    else:
        bucket = _nearest(width, height, wanted, config)
        resized = _cover(width, height, bucket)
    left, top = (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
    return Placement(*bucket, *resized, left, top)


def jpeg_reduction(kind: str, width: int, height: int, placement: Placement) -> int:
    """1, 2, 4 or 8: at which part of its size a picture is decoded before it is scaled to ``placement``.

    A JPEG's decoder gives the lower frequencies alone at a fraction of the cost. At least 1.5 times the pixels wanted
    are left on each side, and sides that do not divide are decoded whole: the crop stays where it was. Against
    scaling the whole picture by Lanczos the result is as close as Lanczos is to bicubic, and closer than an average
    over areas by 6 dB and more.

    Args:
        kind: the format that the header names.
        width: pixels after the EXIF rotation.
        height: pixels after the EXIF rotation.
        placement: what the picture is scaled to.
    """
    if kind not in ("JPEG", "MPO"):
        return 1
    for part in (8, 4, 2):
        enough = width >= 1.5 * part * placement.resized_w and height >= 1.5 * part * placement.resized_h
        if enough and width % part == 0 and height % part == 0:
            return part
    return 1


def random_crop(placement: Placement, seed: int, epoch: int, slot: int) -> Placement:
    """Move the crop to a place drawn for this epoch and slot; bucket and scale stay."""
    draw = python_random(seed, "crop", epoch, slot)
    left = draw.randrange(placement.resized_w - placement.bucket_w + 1)
    top = draw.randrange(placement.resized_h - placement.bucket_h + 1)
    return replace(placement, left=left, top=top)


@lru_cache(maxsize=64)
def bucket_sizes(area: int, min_side: int, max_side: int, step: int) -> tuple[tuple[int, int], ...]:
    """All buckets of about ``area`` pixels whose sides are multiples of ``step``, sorted by width.

    Raises:
        ConfigError: not even the square of that area has a side of one step, or the limits exclude each other.
    """
    square = int(math.sqrt(area)) // step * step
    if square == 0:
        raise ConfigError(
            "No bucket fits the resolution",
            f"dataset.buckets.step is {step}, larger than a side of {int(math.sqrt(area))} pixels",
            "Lower dataset.buckets.step or raise dataset.resolution.",
        )
    if min_side > max_side:
        raise ConfigError(
            "No bucket fits the limits",
            f"dataset.buckets.min_side {min_side} is above max_side {max_side}",
            "Swap or widen them.",
        )
    smallest = max(step, min_side // step * step)
    largest = -(-max_side // step) * step
    sizes = {(square, square)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def _nearest(width: int, height: int, wanted: tuple[int, int], config: BucketConfig) -> tuple[int, int]:
    sizes = bucket_sizes(wanted[0] * wanted[1], config.min_side, config.max_side, config.step)
    if (width, height) in sizes:
        return width, height
    ratio = width / height
    # min() keeps the first of equals, and the sizes are sorted: the narrower one wins.
    return min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))


def _cover(width: int, height: int, bucket: tuple[int, int]) -> tuple[int, int]:
    wider = width / height > bucket[0] / bucket[1]
    scale = bucket[1] / height if wider else bucket[0] / width
    return int(width * scale + 0.5), int(height * scale + 0.5)


def _only_bucket(wanted: tuple[int, int]) -> tuple[int, int]:
    if wanted[0] % _PATCH or wanted[1] % _PATCH:
        below = wanted[0] // _PATCH * _PATCH
        raise ConfigError(
            "The resolution does not fit the model",
            f"dataset.resolution is {wanted[0]}; without buckets it must be a multiple of {_PATCH}",
            f"Use {below} or {below + _PATCH}, or switch dataset.buckets.enabled on.",
        )
    return wanted


def _shrink_only(width: int, height: int, area: int, step: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bucket and resized size without enlarging: the bucket is the resized size, floored to steps."""
    resized = (width, height) if width * height <= area else _shrunk(width / height, area, step)
    bucket = resized[0] // step * step, resized[1] // step * step
    if 0 in bucket:
        raise DatasetError(
            "A picture is too small for its bucket",
            f"{width} x {height} gives {resized[0]} x {resized[1]}, less than one step of {step} pixels on a side",
            "Switch dataset.buckets.no_upscale off, lower dataset.buckets.step, or leave the picture out.",
        )
    return bucket, resized


def _shrunk(ratio: float, area: int, step: int) -> tuple[int, int]:
    """Size of about ``area`` with one side on a step: the side whose rounding bends the aspect ratio less."""

    def rounded(side: float) -> int:
        return int(side + 0.5) // step * step

    ideal_w = math.sqrt(area * ratio)
    by_w, by_h = rounded(ideal_w), rounded(area / ideal_w)
    error_w = _ratio_error(by_w, rounded(by_w / ratio), ratio)
    error_h = _ratio_error(rounded(by_h * ratio), by_h, ratio)
    if error_w < error_h:
        return by_w, int(by_w / ratio + 0.5)
    return int(by_h * ratio + 0.5), by_h


def _ratio_error(width: int, height: int, ratio: float) -> float:
    return abs(width / height - ratio) if height else math.inf
