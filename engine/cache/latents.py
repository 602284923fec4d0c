"""Latents of every picture: decoded, encoded once, kept on disk.

Takes views (a picture, where it is cropped, whether it is mirrored), gives the key of each in a
:class:`~engine.cache.store.Store`. The autoencoder is loaded only when something is missing, and is gone from the
GPU before the transformer arrives.

Pictures are encoded one at a time. Kernels round differently for other batch sizes, and a run killed while caching
would batch the rest differently: so a latent depends on its key alone, and the resumed run is bit-identical. The
next pictures are decoded meanwhile, in the decoder's own process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine.cache.stage import ProgressFn, Stage, StopFn, out_of_memory
from engine.cache.store import Store, content_key
from engine.config import DatasetConfig
from engine.dataset.buckets import Placement
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Sample
from engine.errors import DatasetError
from engine.models.weights import free_gpu
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.models.autoencoder import Autoencoder

LATENTS_VERSION = 1
"""Raised when pixels or latents of the same key would come out differently (resize, crop, scaling, layout)."""

DECODE_AHEAD = 3
"""Pictures decoded before they are needed; 12 MB each at 2048 px."""


@dataclass(frozen=True)
class View:
    """A picture as the model sees it: resized and cropped to a bucket, mirrored or not."""

    sample: Sample
    placement: Placement
    flip: bool = False


def latent_key(view: View, config: DatasetConfig, encoder_fingerprint: str) -> str:
    """The cache key of a view: the file's bytes, placement, mirroring, background, encoder and method."""
    place = view.placement
    return content_key(
        kind="latents",
        version=LATENTS_VERSION,
        picture=view.sample.content_hash,
        bucket=f"{place.bucket_w}x{place.bucket_h}",
        resized=f"{place.resized_w}x{place.resized_h}",
        crop=f"{place.left},{place.top}",
        flip=view.flip,
        background=config.background,
        encoder=encoder_fingerprint,
    )


def cache_latents(
    views: Sequence[View],
    config: DatasetConfig,
    store: Store,
    decoder: Decoder,
    load_encoder: Callable[[], Autoencoder],
    fingerprint: str,
    progress: ProgressFn,
    should_stop: StopFn,
) -> dict[View, str]:
    """Make sure that the latents of every view stand in the store, whole.

    Every entry's checksum is verified first (once per store), damaged ones are redone, so training reads what was
    checked. Entries are ``mean`` and ``std`` (16, h, w), float32, shifted and scaled; views of equal content share
    one.

    Args:
        load_encoder: called once if anything is missing; its result has left the GPU when this returns.
        fingerprint: the encoder's, known without loading it.
        progress: called per entry, found or encoded.
        should_stop: asked between pictures.

    Returns:
        The key of each view; after a stop only of those whose latents stand in the store.

    Raises:
        DatasetError: a picture cannot be decoded, or changed since the scan.
        CacheError: a latent is not finite, or the GPU's memory does not suffice.
        DiskError: the cache cannot be written.
    """
    keys = {view: latent_key(view, config, fingerprint) for view in views}
    first = {key: view for view, key in reversed(keys.items())}
    names = {key: safe_text(first[key].sample.name) for key in keys.values()}

    def decode(key: str) -> np.ndarray:
        view = first[key]
        pixels = decoder.pixels(view.sample.path, view.placement, config.background, view.flip)
        if latent_key(view, config, fingerprint) != key:
            raise _changed(view.sample)
        return pixels

    stage = Stage(store, names, progress, should_stop)
    missing = stage.missing()
    if missing:
        encoder = load_encoder()
        try:
            # Like sizes together: memory and kernels are set up once for each.
            missing.sort(key=lambda key: (first[key].placement.bucket_h, first[key].placement.bucket_w))
            _encode_missing(missing, stage, decode, encoder)
        except torch.OutOfMemoryError as err:
            raise out_of_memory("Encoding the pictures", err) from err
        finally:
            encoder.to("cpu")
            del encoder
            free_gpu()
    return {view: key for view, key in keys.items() if key in stage.ready}


def _changed(sample: Sample) -> DatasetError:
    """Pixels of a file that was replaced meanwhile must not be stored under the old file's key."""
    return DatasetError(
        "A picture changed while the run was starting",
        f"{safe_text(sample.name)} is not the file any more that it was when the cache was checked",
        "Start the run again; it takes the file as it is now.",
    )


def _encode_missing(
    missing: list[str], stage: Stage, decode: Callable[[str], np.ndarray], encoder: Autoencoder
) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        for key, pixels in _decoded(missing, stage, pool, decode):
            stage.put(key, encode_pixels(pixels, encoder))


def _decoded(
    missing: list[str], stage: Stage, pool: ThreadPoolExecutor, decode: Callable[[str], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Keys and pixels (H, W, 3) uint8, in order, decoded a few ahead; ends early on a stop."""
    waiting: deque[tuple[str, Future[np.ndarray]]] = deque()
    todo = iter(missing)
    try:
        while not stage.stopped():
            for key in islice(todo, DECODE_AHEAD - len(waiting)):
                waiting.append((key, pool.submit(decode, key)))
            if not waiting:
                return
            key, pixels = waiting.popleft()
            yield key, pixels.result()
    finally:
        for _, pixels in waiting:
            pixels.cancel()


def encode_pixels(pixels: np.ndarray, encoder: Autoencoder) -> dict[str, Tensor]:
    """Latents of one picture: pixels (H, W, 3) uint8 to ``mean`` and ``std`` (16, h, w) float32 on the CPU."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    with torch.no_grad():
        mean, std = encoder.encode(image)
    return {"mean": mean[0].float().cpu(), "std": std[0].float().cpu()}
