"""Small pictures of a dataset, kept on disk: what the preview is made from, instead of files of many megapixels.

Comes in: a picture's path. Goes out: at most 512 x 512 pixels, turned by EXIF, or the reason why there are none.
Strangers' pictures are opened by the decoder's process alone; what is read here are WebP files that this module
wrote. A file is named by the picture's path, size and time of change, so a changed picture gets a new one; one that
is damaged is made anew. Nothing here touches the screen: all of it runs in the pool's two threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.buckets import Placement
from engine.dataset.decoder import MASK_CELL
from engine.errors import DatasetError, DiskError
from engine.files import atomic_write
from engine.text import safe_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.dataset.decoder import Decoder
    from tui.widgets.overlays import MaskShown

SIDE = 512
QUALITY = 85
EXACT_SIDE = 128
"""Pictures up to this side are kept without loss."""
KEPT_FILES = 5000
"""More than these are cut back to nine tenths when the pool starts, those not used for longest first."""
KEPT_PICTURES = 48
"""In memory; 786 kB each at most."""
LARGE_SIDE = 2048
KEPT_LARGE = 2
"""In memory alone; 12.6 MB each at most."""
_NAME = re.compile(r"[0-9a-f]{40}\.webp")
_MAX_BYTES = 4 * 2**20
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Thumbnail:
    """A picture's pixels (height, width, 3), or the ``problem`` that it has, safe to show."""

    pixels: NDArray[np.uint8] | None
    problem: str = ""
    hint: str = ""


class Thumbnails:
    """The cache in ``folder``. Whoever wants a picture calls :meth:`load` in one of :attr:`pool`'s threads.

    Args:
        decoder: opens the pictures.
        folder: where the files lie; made when first needed. One that cannot be written costs time, nothing else.
    """

    def __init__(self, decoder: Decoder, folder: Path) -> None:
        self._decoder = decoder
        self._folder = folder
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._large: OrderedDict[str, Thumbnail] = OrderedDict()
        self._lock = threading.Lock()
        self._tidied = False
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="thumbnails")

    def load(self, path: Path) -> Thumbnail:
        """The picture's thumbnail: from memory, from disk, or decoded. Slow; never raises for a bad picture."""
        return self._remembered(path, self._kept, KEPT_PICTURES, self._made)

    def large(self, path: Path) -> Thumbnail:
        """The picture with up to ``LARGE_SIDE`` pixels a side, to be looked at closely; else as :meth:`load`."""
        return self._remembered(path, self._large, KEPT_LARGE, lambda path, key: self._decoded(path, LARGE_SIDE))

    def forget_large(self) -> None:
        """Nobody looks closely any more: give their memory back."""
        with self._lock:
            self._large.clear()

    def _remembered(
        self,
        path: Path,
        kept: OrderedDict[str, Thumbnail],
        most: int,
        make: Callable[[Path, str], Thumbnail],
    ) -> Thumbnail:
        try:
            status = os.stat(path)
        except (OSError, ValueError) as err:
            return Thumbnail(None, f"cannot be read: {_reason(err)}", "Is it still there?")
        key = thumbnail_key(path, status)
        with self._lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        thumbnail = make(path, key)
        with self._lock:
            kept[key] = thumbnail
            while len(kept) > most:
                kept.popitem(last=False)
        return thumbnail

    def mask(self, shown: MaskShown, width: int, height: int) -> NDArray[np.uint8] | None:
        """A picture's mask at the size of its thumbnail, (height, width); None where there is none that fits it."""
        cells = Placement(width * MASK_CELL, height * MASK_CELL, width * MASK_CELL, height * MASK_CELL, 0, 0)
        try:
            return self._decoder.mask(shown.path, cells, shown.picture, None, False, shown.alpha)
        except DatasetError:  # the caches say what is wrong with it
            return None

    def close(self) -> None:
        """Wait for what is being decoded, forget the rest."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _made(self, path: Path, key: str) -> Thumbnail:
        file = self._folder / f"{key}.webp"
        pixels = _read(file)
        if pixels is not None:
            return Thumbnail(pixels)
        decoded = self._decoded(path, SIDE)
        if decoded.pixels is None:
            return decoded
        # What was packed is shown from the first time on: a picture looks the same whenever it is looked at.
        packed = self._write(file, decoded.pixels)
        return Thumbnail(_unpacked(packed)) if len(packed) <= _MAX_BYTES else decoded

    def _decoded(self, path: Path, side: int) -> Thumbnail:
        try:
            return Thumbnail(self._decoder.thumbnail(path, side))
        except DatasetError as err:
            shown = safe_text(path)
            detail = err.detail.removeprefix(f"{shown}: ").removeprefix(f"{shown} ")
            return Thumbnail(None, safe_text(f"{err.title}: {detail}", 300), safe_text(err.hint, 300))

    def _write(self, file: Path, pixels: NDArray[np.uint8]) -> bytes:
        from PIL import Image

        packed = io.BytesIO()
        # A picture of few pixels is enlarged until each is seen: it keeps them exactly.
        exact = max(pixels.shape) <= EXACT_SIDE
        Image.fromarray(pixels).save(packed, "WEBP", quality=QUALITY, lossless=exact)
        with contextlib.suppress(DiskError, OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._tidy()
            atomic_write(file, packed.getvalue() + _digest(packed.getvalue()))
        return packed.getvalue()

    def _tidy(self) -> None:
        """Once: remove what was not used for longest, if there is too much."""
        with self._lock:
            due, self._tidied = not self._tidied, True
        if not due:
            return
        with os.scandir(self._folder) as entries:
            files = [(entry.stat().st_mtime_ns, entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
        if len(files) > KEPT_FILES:
            for _, path in sorted(files)[: len(files) - KEPT_FILES * 9 // 10]:
                with contextlib.suppress(OSError):
                    os.unlink(path)


def thumbnail_key(path: Path, status: os.stat_result) -> str:
    """The name of a picture's thumbnail: another one as soon as the picture changes."""
    told = f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
    return hashlib.sha1(told.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _read(file: Path) -> NDArray[np.uint8] | None:
    """A file of ours; None where there is none or it is damaged. Reading it marks it as used."""
    from PIL import Image

    try:
        if os.path.getsize(file) > _MAX_BYTES:
            return None
        data = file.read_bytes()
        packed = data[:-_DIGEST_BYTES]
        if _digest(packed) != data[-_DIGEST_BYTES:]:
            return None
        pixels = _unpacked(packed)
        os.utime(file)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return pixels


def _digest(packed: bytes) -> bytes:
    """What is written after a WebP file, whose readers pass it over: a changed byte would be seen as a colour."""
    return hashlib.sha256(packed).digest()


def _unpacked(packed: bytes) -> NDArray[np.uint8] | None:
    """Pixels of a WebP file of ours; None if it is larger than any of them is.

    Raises:
        OSError, ValueError, SyntaxError: it is damaged.
    """
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(packed), formats=["WEBP"]) as picture:
        return None if max(picture.size) > SIDE else np.asarray(picture.convert("RGB"))


def _reason(err: Exception) -> str:
    return safe_text(err.strerror if isinstance(err, OSError) and err.strerror else err, 200)
