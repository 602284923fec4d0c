"""Several decoder processes side by side, so that pictures are decoded on all cores.

Each child is a :class:`~engine.dataset.decoder.Decoder` of its own, with its own limits on memory and time: a hostile
picture costs itself and nothing that is decoded beside it. Children start when they are first needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from queue import LifoQueue

import numpy as np
import psutil
from numpy.typing import NDArray

from engine.dataset.buckets import Placement
from engine.dataset.decoder import MEMORY_LIMIT, Decoder
from engine.dataset.sidecar import Crop

MOST_DECODERS = 16
"""More children than this feed no encoder faster, and each holds a picture in memory."""

_CHILD_BYTES = 64 * 2**20
_BYTES_A_PIXEL = 12
"""What a child holds of a large picture at its worst: with transparency, its colours, its channels and the result."""


def decoder_count(cores: int, free: int, max_megapixels: float) -> int:
    """How many children may decode at once: one a core, and no more than half of the free memory holds.

    Args:
        cores: processors that this process may use.
        free: bytes of memory that nobody uses.
        max_megapixels: the largest picture that is let in.
    """
    each = min(_CHILD_BYTES + int(max_megapixels * 1e6) * _BYTES_A_PIXEL, MEMORY_LIMIT)
    return max(1, min(cores, MOST_DECODERS, free // 2 // each))


class DecoderPool:
    """As many decoders as cores and memory allow; a picture goes to whichever is idle.

    Safe to use from several threads: those beyond ``workers`` wait. Close it, or use it as a context manager.
    """

    def __init__(self, max_megapixels: float = 64.0, workers: int = 0) -> None:
        """Start nothing yet; ``workers`` 0 counts cores and memory."""
        free = psutil.virtual_memory().available
        self.workers = workers or decoder_count(_cores(), free, max_megapixels)
        self._decoders = [Decoder(max_megapixels) for _ in range(self.workers)]
        # The one that worked last comes first: its child runs already.
        self._idle: LifoQueue[Decoder] = LifoQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all children and wait for them. Closing twice is fine; using the pool afterwards is not."""
        for decoder in self._decoders:
            decoder.close()

    def pixels(
        self,
        path: Path,
        placement: Placement,
        background: str,
        flip: bool,
        reduction: int = 1,
        box: Crop | None = None,
    ) -> NDArray[np.uint8]:
        """See :meth:`engine.dataset.decoder.Decoder.pixels`.

        Raises:
            DatasetError: not a picture that can be trained on, or not the one that the placement was made for.
        """
        decoder = self._idle.get()
        try:
            return decoder.pixels(path, placement, background, flip, reduction, box)
        finally:
            self._idle.put(decoder)

    def mask(
        self, path: Path, placement: Placement, picture: tuple[int, int], box: Crop | None, flip: bool, alpha: bool
    ) -> NDArray[np.uint8]:
        """See :meth:`engine.dataset.decoder.Decoder.mask`.

        Raises:
            DatasetError: not a picture that can be read, or of another shape than the picture.
        """
        decoder = self._idle.get()
        try:
            return decoder.mask(path, placement, picture, box, flip, alpha)
        finally:
            self._idle.put(decoder)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
