"""Pictures as pixels, decoded in a child process of its own.

One child serves the cache and the screen. A hostile or broken picture costs itself only: the child has limits on
memory and time, and if it dies the picture is named and another child goes on with the next. In goes a path, out
come sizes or uint8 RGB arrays; every refusal is a DatasetError.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.dataset.buckets import Placement
from engine.dataset.decoder_pipe import Child, ChildLost
from engine.dataset.sidecar import Crop
from engine.errors import DatasetError
from engine.text import safe_text

MASK_CELL = 8
"""Pixels a side that one value of a mask stands for: one of the latents."""
MEMORY_LIMIT = 2 << 30
"""Bytes of address space that a child may have."""
_T = TypeVar("_T")
_Understood = Callable[[dict[str, Any], bytearray], _T]
"""Makes of a reply's header and bytes what was asked for; LookupError, TypeError and ValueError: it is none."""

_BATCH = 64
"""Pictures asked for at once: the answers' latency is hidden, and another thread waits for at most one batch."""


@dataclass(frozen=True)
class ImageInfo:
    """What a picture's header tells: size in pixels after the EXIF rotation, format, and (code, text) warnings."""

    width: int
    height: int
    format: str
    warnings: tuple[tuple[str, str], ...] = ()
    turned: int = 1
    """The turn that its EXIF data ask for, 1 (none) to 8."""
    mode: str = ""
    """Pillow's name for its kind of pixels: RGB, CMYK ...; empty where only a WebP's first bytes were read."""


@dataclass(frozen=True)
class Look:
    """A picture looked at once: what its header tells, and pixels (h, w, 3) of two kinds.

    Attributes:
        info: also warnings that only decoding shows.
        small: the whole picture made small, turned by EXIF.
        patch: its middle at full size, not turned: a JPEG's blocks of 8 begin at its edges. One pixel of a large
            JPEG, which is not decoded at full size.
        quantised: mean divisor of a JPEG's brightness; 0 where it is none.
        transparent: share of the picture that is, 0 to 1.
    """

    info: ImageInfo
    small: NDArray[np.uint8]
    patch: NDArray[np.uint8]
    quantised: float = 0.0
    transparent: float = 0.0


class Decoder:
    """One child process that opens pictures; safe to use from several threads, one request at a time.

    The child starts with the first request. A picture of more than ``max_megapixels`` is refused by its header, one
    that takes longer than ``time_limit_s`` or needs more than ``memory_limit`` bytes is given up. Close the decoder,
    or use it as a context manager; a parent that dies takes the child with it.
    """

    workers = 1
    """Pictures that are decoded side by side."""

    def __init__(
        self, max_megapixels: float = 64.0, time_limit_s: float = 20.0, memory_limit: int = MEMORY_LIMIT
    ) -> None:
        self._limits: dict[str, float] = {"time_limit_s": time_limit_s}
        self.admit(max_megapixels)
        self._time_limit_s = time_limit_s
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child and wait for it. Closing twice is fine; using the decoder afterwards is not."""
        with self._lock:
            self._closed = True
            self._drop_child()

    def admit(self, max_megapixels: float) -> None:
        """From the next request on, refuse pictures of more than this: another dataset may have another limit."""
        self._limits = {**self._limits, "max_pixels": int(max_megapixels * 1e6)}

    def probe(self, path: Path) -> ImageInfo:
        """Read the header only.

        Raises:
            DatasetError: not a picture that can be trained on.
        """
        return self._one("probe", path, _image_info)

    def probe_many(self, paths: Sequence[Path]) -> Iterator[ImageInfo | DatasetError]:
        """Read many headers; one result per path, in order, errors as values."""
        for start in range(0, len(paths), _BATCH):
            yield from self._exchange({"op": "probe"}, paths[start : start + _BATCH], _image_info)

    def verify(self, path: Path, background: str = "white") -> ImageInfo:
        """Decode the whole picture and throw the pixels away: truncation and transparency show only so.

        Raises:
            DatasetError: not a picture that can be trained on.
        """
        return self._one("verify", path, _image_info, background=background)

    def pixels(
        self,
        path: Path,
        placement: Placement,
        background: str,
        flip: bool,
        reduction: int = 1,
        box: Crop | None = None,
    ) -> NDArray[np.uint8]:
        """Decode, turn by EXIF, put on ``background``, cut out ``box``, scale, crop to the bucket, mirror.

        ``reduction`` decodes a JPEG at a half, a quarter or an eighth of its size, see
        :func:`~engine.dataset.buckets.jpeg_reduction`.

        Returns:
            uint8 RGB, shape (bucket_h, bucket_w, 3), writable.

        Raises:
            DatasetError: not a picture that can be trained on, or not the one that the placement was made for.
        """
        return self._one(
            "pixels",
            path,
            lambda header, payload: _array(header, payload, (placement.bucket_w, placement.bucket_h)),
            placement=dataclasses.astuple(placement),
            background=background,
            flip=flip,
            reduction=reduction,
            box=box,
        )

    def mask(
        self, path: Path, placement: Placement, picture: tuple[int, int], box: Crop | None, flip: bool, alpha: bool
    ) -> NDArray[np.uint8]:
        """A mask as :meth:`pixels` shows its picture, each value the mean over ``MASK_CELL`` pixels a side.

        Args:
            path: the mask; with ``alpha`` a picture whose alpha channel it is.
            placement: the picture's.
            picture: the whole picture's width and height; the mask may be larger or smaller, of the same shape.
            box: what the user cut out of the picture, in its pixels.
            flip: mirror it.

        Returns:
            uint8, shape (bucket_h / MASK_CELL, bucket_w / MASK_CELL); 255 counts in full.

        Raises:
            DatasetError: not a picture that can be read, or of another shape than the picture.
        """
        size = placement.bucket_w // MASK_CELL, placement.bucket_h // MASK_CELL
        found = self._one(
            "mask",
            path,
            lambda header, payload: _array(header, payload, size),
            placement=dataclasses.astuple(placement),
            picture=picture,
            box=box or (0, 0, *picture),
            size=size,
            flip=flip,
            alpha=alpha,
        )
        return found[:, :, 0]

    def thumbnail(self, path: Path, max_side: int, background: str = "white") -> NDArray[np.uint8]:
        """The whole picture, at most ``max_side`` pixels wide and high; uint8 RGB, shape (h, w, 3).

        Raises:
            DatasetError: not a picture that can be read.
        """

        def small(header: dict[str, Any], payload: bytearray) -> NDArray[np.uint8]:
            return _array(header, payload, most=max_side)

        return self._one("thumbnail", path, small, max_side=max_side, background=background)

    def first_frame(self, path: Path, background: str = "white") -> NDArray[np.uint8]:
        """The first frame of a GIF, which nothing else opens: to make another picture of; uint8 RGB, (h, w, 3).

        Raises:
            DatasetError: not a GIF, or one that cannot be read.
        """
        return self._one("first_frame", path, self._whole, background=background)

    def _whole(self, header: dict[str, Any], payload: bytearray) -> NDArray[np.uint8]:
        width, height = header["size"]
        if width * height > self._limits["max_pixels"]:
            raise ValueError("more pixels than are admitted")
        return _array(header, payload)

    def look(self, path: Path, max_side: int, patch: int, background: str = "white") -> Look:
        """All that a picture's quality is told by, of one decoding; ``patch`` is the side of its middle.

        Raises:
            DatasetError: not a picture that can be trained on.
        """
        return self._one("look", path, _looked, max_side=max_side, patch=patch, background=background)

    def _one(self, operation: str, path: Path, understood: _Understood[_T], **options: Any) -> _T:
        outcome = self._exchange({"op": operation, **options}, [path], understood)[0]
        if isinstance(outcome, DatasetError):
            raise outcome
        return outcome

    def _exchange(
        self, request: dict[str, Any], paths: Sequence[Path], understood: _Understood[_T]
    ) -> list[_T | DatasetError]:
        """One outcome per path. A child that dies, or lies, takes only the picture it was at."""
        outcomes: list[_T | DatasetError] = []
        # Absolute: the child stays in the folder that it was started in.
        places = [os.path.abspath(path) for path in paths]
        with self._lock:
            while len(outcomes) < len(places):
                rest = places[len(outcomes) :]
                try:
                    child = self._running_child()
                    child.send({**request, **self._limits, "paths": rest}, self._time_limit_s)
                    for _ in rest:
                        outcomes.append(_outcome(understood, *child.receive(self._time_limit_s)))
                except ChildLost as lost:
                    self._drop_child()
                    outcomes.append(_died(paths[len(outcomes)], lost))
        return outcomes

    def _running_child(self) -> Child:
        if self._closed:
            raise RuntimeError("the decoder was closed")
        if self._child is None or not self._child.alive():
            self._drop_child()
            self._child = Child(self._memory_limit)
        return self._child

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def _image_info(header: dict[str, Any], _: bytearray) -> ImageInfo:
    warnings = tuple((safe_text(code, 100), safe_text(text, 500)) for code, text in header["warnings"])
    width, height = header["width"], header["height"]
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError("a picture without pixels")
    turned = header.get("turned", 1)
    if turned not in range(1, 9):
        raise ValueError("no turn that EXIF knows")
    return ImageInfo(
        width, height, safe_text(header["format"], 20), warnings, turned, safe_text(header.get("mode", ""), 20)
    )


def _looked(header: dict[str, Any], payload: bytearray) -> Look:
    width, height = header["size"]
    cut = width * height * 3
    small = _array({"size": (width, height)}, payload[:cut])
    patch = _array({"size": header["patch"]}, payload[cut:])
    quantised, share = min(max(float(header["quantised"]), 0.0), 65535.0), float(header["transparent"])
    return Look(_image_info(header, payload), small, patch, quantised, min(max(share, 0.0), 1.0))


def _array(
    header: dict[str, Any], payload: bytearray, expected: tuple[int, int] | None = None, most: int = 1 << 16
) -> NDArray[np.uint8]:
    """The pixels of a reply; ``expected`` is the (width, height) that was asked for, or ``most`` their limit."""
    width, height = header["size"]
    if expected not in (None, (width, height)) or not (0 < width <= most and 0 < height <= most):
        raise ValueError("another size than was asked for")
    return np.frombuffer(payload, dtype=np.uint8).reshape(height, width, 3)


def _outcome(understood: _Understood[_T], header: dict[str, Any], payload: bytearray) -> _T | DatasetError:
    try:
        if "error" not in header:
            return understood(header, payload)
        title, detail, hint = (safe_text(part) for part in header["error"])
    except (LookupError, TypeError, ValueError) as err:
        raise ChildLost("its answer makes no sense") from err
    return DatasetError(title, detail, hint)


def _died(path: Path, lost: ChildLost) -> DatasetError:
    return DatasetError(
        "The decoder died on this picture",
        f"{safe_text(path)}: {safe_text(lost, 500)}",
        "Open and save it again with a picture editor, replace it, or remove it.",
    )
