"""Masks of the pictures that have one, scaled to the latents' size once, kept on disk beside them.

Takes views, gives the key of each masked one in a :class:`~engine.cache.store.Store`. A mask is an entry of its own,
named by the mask file's bytes and by how its picture is placed: another mask leaves the picture's latents as they
are. Entries are ``mask`` (h, w), uint8; 255 counts in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.cache.latents import View
from engine.cache.stage import ProgressFn, Stage, StopFn
from engine.cache.store import Store, content_key
from engine.dataset.buckets import Placement
from engine.dataset.scan import file_digest
from engine.dataset.sidecar import Crop
from engine.errors import DatasetError
from engine.text import safe_text

MASKS_VERSION = 1
"""Raised when a mask of the same key would come out differently."""


class Masks(Protocol):
    """What decodes masks: :class:`~engine.dataset.decoder_pool.DecoderPool`, or one decoder."""

    workers: int
    """Masks that are decoded side by side."""

    def mask(
        self, path: Path, placement: Placement, picture: tuple[int, int], box: Crop | None, flip: bool, alpha: bool
    ) -> NDArray[np.uint8]:
        """Values (h, w), uint8; see :meth:`engine.dataset.decoder.Decoder.mask`."""
        ...


def mask_key(view: View) -> str:
    """The cache key of a view's mask, which it has."""
    place, sample = view.placement, view.sample
    assert sample.mask is not None
    return content_key(
        kind="mask",
        version=MASKS_VERSION,
        mask=file_digest(sample.mask),
        alpha=sample.mask == sample.path,
        picture="x".join(map(str, sample.picture_size)),
        bucket=f"{place.bucket_w}x{place.bucket_h}",
        resized=f"{place.resized_w}x{place.resized_h}",
        crop=f"{place.left},{place.top}",
        box=",".join(map(str, sample.box or ())),
        flip=view.flip,
    )


def cache_masks(
    views: Sequence[View], store: Store, decoder: Masks, progress: ProgressFn, should_stop: StopFn
) -> dict[View, str]:
    """Make sure that the mask of every view that has one stands in the store, whole; see ``cache_latents``.

    Returns:
        The key of each masked view; after a stop only of those whose masks stand in the store.

    Raises:
        DatasetError: a mask cannot be decoded, has another shape than its picture, or changed meanwhile.
        CacheError: an entry cannot be read.
        DiskError: the cache cannot be written.
    """
    keys = {view: mask_key(view) for view in views if view.sample.mask is not None}
    first = {key: view for view, key in reversed(keys.items())}
    stage = Stage(store, {key: safe_text(view.sample.name) for key, view in first.items()}, progress, should_stop)

    def decoded(key: str) -> NDArray[np.uint8]:
        view, sample = first[key], first[key].sample
        assert sample.mask is not None
        alpha = sample.mask == sample.path
        try:
            found = decoder.mask(sample.mask, view.placement, sample.picture_size, sample.box, view.flip, alpha)
        except DatasetError as err:
            raise DatasetError(err.title, f"{safe_text(sample.mask)}: {err.detail}", err.hint) from err
        if mask_key(view) != key:
            raise DatasetError(
                "A mask changed while the run was starting",
                f"{safe_text(sample.mask)} is not the file any more that it was when the cache was checked",
                "Start the run again; it takes the file as it is now.",
            )
        return found

    with ThreadPoolExecutor(decoder.workers, thread_name_prefix="masks") as pool:
        missing, ahead = stage.missing(), 4 * decoder.workers
        for start in range(0, len(missing), ahead):
            some = missing[start : start + ahead]
            for key, mask in zip(some, pool.map(decoded, some), strict=True):
                if stage.stopped():
                    break
                stage.put(key, {"mask": torch.from_numpy(mask.copy())})
    return {view: key for view, key in keys.items() if key in stage.ready}
