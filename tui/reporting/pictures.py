"""Small pictures for a page, within a budget: decoded in the decoder's process, encoded anew by us.

A file's own bytes never come into a page: what it says beyond its pixels (a comment, a place, another format's code)
stays behind, and what is broken or hostile costs itself only. All pictures of a page share its budget: many become
small ones, and those that do not even fit then are left out, the least important first.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.decoder import Decoder
from engine.errors import DatasetError
from engine.text import safe_text
from tui.reporting.markup import Markup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Key = tuple[object, ...]

SIDES = (1024, 768, 512, 384, 320, 256, 192, 160, 128, 96)
"""Longest sides that pictures are made in; all of a page in one."""

QUALITIES = (82, 68, 50)
EXACT_SIDE = 128
"""Pictures up to this side are kept without loss: each pixel is seen when they are enlarged."""

TRIED = 6
"""Pictures that are made in several sizes first, to see how large all may be."""

SURPLUS = 1.3
"""What is kept free for pictures with more in them than those that were tried."""

WORKERS = 4
_BASE64 = 4 / 3


@dataclass(frozen=True)
class Picture:
    """A picture of ours: WebP bytes, and its size in pixels."""

    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> Markup:
        """For the ``src`` of a page."""
        return Markup("data:image/webp;base64," + base64.b64encode(self.data).decode("ascii"))

    @property
    def is_tiny(self) -> bool:
        """Whether its pixels are to be seen as squares when it is enlarged."""
        return max(self.width, self.height) <= EXACT_SIDE


@dataclass
class Pictures:
    """What became of the pictures that a page asked for, by their keys.

    Attributes:
        made: those that are in the page.
        failed: why others could not be read, in words.
        left_out: keys of those that there was no room for.
        side: the longest side that they were made in.
        size: bytes that they take in the page.
    """

    made: dict[Key, Picture] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)
    left_out: set[Key] = field(default_factory=set)
    side: int = 0
    size: int = 0


def make_pictures(
    wanted: Mapping[Key, Path],
    budget: int,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> Pictures:
    """Make all of ``wanted`` that fit into ``budget`` bytes of a page.

    Args:
        wanted: the files by key, the most important first.
        progress: told how many of them are done.
        stop: set by another thread, no more are made.
    """
    keys = list(wanted)
    room = max(0, int(budget / _BASE64))
    found = Pictures()
    with Decoder() as decoder:
        found.side, count = plan_size(decoder, list(wanted.values()), room)
    fitting = keys[:count]
    found.left_out.update(keys[count:])
    if not fitting:
        return found
    with _Makers(found.side, room // count) as makers:
        for number, (key, outcome) in enumerate(makers.made([(key, wanted[key]) for key in fitting]), start=1):
            if isinstance(outcome, str):
                found.failed[key] = outcome
            elif found.size + len(outcome.data) * _BASE64 > budget:
                found.left_out.add(key)
            else:
                found.made[key] = outcome
                found.size += len(outcome.uri)
            if progress is not None:
                progress(number, len(fitting))
            if stop is not None and stop.is_set():
                break
    return found


def plan_size(decoder: Decoder, files: Sequence[Path], room: int) -> tuple[int, int]:
    """How long the longest side of all pictures may be so that they take ``room`` bytes, and how many have room."""
    from PIL import Image as pillow

    tried = []
    for path in files[:: max(1, len(files) // TRIED)][:TRIED]:
        with suppress(DatasetError):  # it is told of when its turn comes
            tried.append(pillow.fromarray(decoder.thumbnail(path, SIDES[0])))
    if not tried:
        return SIDES[-1], len(files)
    mean = 1.0
    for side in SIDES:
        for picture in tried:
            picture.thumbnail((side, side), pillow.Resampling.LANCZOS)
        mean = sum(len(_webp(picture, QUALITIES[0])) for picture in tried) / len(tried) * SURPLUS
        if mean * len(files) <= room:
            return side, len(files)
    return SIDES[-1], int(room / mean)


class _Makers:
    """A few threads, each with a decoder of its own."""

    def __init__(self, side: int, share: int) -> None:
        self._side, self._share = side, share
        self._own = threading.local()
        self._decoders: list[Decoder] = []
        self._pool = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1), thread_name_prefix="report")

    def __enter__(self) -> _Makers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()

    def made(self, wanted: Sequence[tuple[Key, Path]]) -> Iterable[tuple[Key, Picture | str]]:
        """Each picture, or why there is none, in order."""
        outcomes = self._pool.map(self._make, (path for _, path in wanted))
        return zip((key for key, _ in wanted), outcomes, strict=True)

    def _make(self, path: Path) -> Picture | str:
        if not hasattr(self._own, "decoder"):
            self._own.decoder = Decoder()
            self._decoders.append(self._own.decoder)
        try:
            return encoded(self._own.decoder.thumbnail(path, self._side), self._share)
        except DatasetError as err:
            return safe_text(err.title, 200)


def encoded(pixels: NDArray[np.uint8], most: int) -> Picture:
    """``pixels`` as WebP of at most ``most`` bytes: in lower quality, then smaller, until it is."""
    from PIL import Image as pillow

    picture: Image = pillow.fromarray(pixels)
    if max(picture.size) <= EXACT_SIDE:
        data = _webp(picture, QUALITIES[0], lossless=True)
        if len(data) <= most:
            return Picture(data, *picture.size)
    while True:
        for quality in QUALITIES:
            data = _webp(picture, quality)
            if len(data) <= most or (quality == QUALITIES[-1] and max(picture.size) <= SIDES[-1]):
                return Picture(data, *picture.size)
        width, height = picture.size
        picture = picture.resize((max(1, width * 3 // 4), max(1, height * 3 // 4)), pillow.Resampling.LANCZOS)


def _webp(picture: Image, quality: int, lossless: bool = False) -> bytes:
    packed = io.BytesIO()
    # Method 2 takes half the time of the usual 4, for the same bytes.
    picture.save(packed, "WEBP", quality=quality, lossless=lossless, method=2)
    return packed.getvalue()
