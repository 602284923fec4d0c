"""Latents of every picture: decoded, encoded once, kept on disk.

Takes views (a picture, where it is cropped, whether it is mirrored), gives the key of each in a
:class:`~engine.cache.store.Store`. The autoencoder is loaded only when something is missing, and is gone from the
GPU before the transformer arrives.

Pictures of one bucket are encoded in batches. Kernels round differently for other batch sizes, so a batch's size is
a function of its bucket alone (short ones are filled up with grey), it is in the key, and which pictures share a
batch follows from the set of views: never from what stands in the cache. A batch of which some are missing is
encoded again whole. So a run killed while caching and resumed holds the same bits. The next pictures are decoded
meanwhile, in processes of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache.stage import NoteFn, ProgressFn, Stage, StopFn, with_patience
from engine.cache.store import Store, content_key
from engine.config import DatasetConfig
from engine.dataset.buckets import Placement, jpeg_reduction
from engine.dataset.scan import Sample
from engine.dataset.sidecar import Crop
from engine.errors import DatasetError
from engine.memory.exhaustion import first_line, ran_out
from engine.models.weights import free_gpu
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.models.autoencoder import Autoencoder

LATENTS_VERSION = 1
"""Raised when pixels or latents of the same key would come out differently (resize, crop, scaling, layout)."""

BATCH_PIXELS = 2**20
"""A batch has as many pixels as one picture of 1024 x 1024, so no smaller resolution needs more memory than that."""

MOST_IN_BATCH = 16

AHEAD_BYTES = 256 * 2**20
"""Decoded pictures that wait for the encoder, in bytes, where more than one for each decoder is to wait."""


class Pixels(Protocol):
    """What decodes: :class:`~engine.dataset.decoder_pool.DecoderPool`, or one decoder."""

    workers: int
    """Pictures that are decoded side by side."""

    def pixels(
        self,
        path: Path,
        placement: Placement,
        background: str,
        flip: bool,
        reduction: int = 1,
        box: Crop | None = None,
    ) -> NDArray[np.uint8]:
        """Pixels (bucket_h, bucket_w, 3), uint8; see :meth:`engine.dataset.decoder.Decoder.pixels`."""
        ...


@dataclass(frozen=True)
class View:
    """A picture as the model sees it: resized and cropped to a bucket, mirrored or not."""

    sample: Sample
    placement: Placement
    flip: bool = False


def batch_size(placement: Placement) -> int:
    """Pictures of this bucket that are encoded together; for one of 1024 px and more each is alone."""
    return max(1, min(MOST_IN_BATCH, BATCH_PIXELS // (placement.bucket_w * placement.bucket_h)))


def latent_key(view: View, config: DatasetConfig, encoder_fingerprint: str) -> str:
    """The cache key of a view: the file's bytes, crop, placement, mirroring, background, encoder and method."""
    place = view.placement
    method: dict[str, int | str] = {}
    # Named only where there is something to name: what was cached before there was a choice is still right.
    if (together := batch_size(place)) > 1:
        method["batch"] = together
    if (reduction := _reduction(view)) > 1:
        method["reduction"] = reduction
    if (box := view.sample.box) is not None:
        method["box"] = ",".join(map(str, box))
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
        **method,
    )


def _decoding(view: View) -> tuple[int, Crop | None]:
    """At which part of its size a picture is decoded, and what the user cut out of it."""
    return _reduction(view), view.sample.box


def _reduction(view: View) -> int:
    sample, box = view.sample, view.sample.box
    part = jpeg_reduction(sample.format, sample.width, sample.height, view.placement)
    # A crop must stay where it is, to the pixel.
    while box is not None and any(side % part for side in (*sample.picture_size, *box)):
        part //= 2
    return part


def cache_latents(
    views: Sequence[View],
    config: DatasetConfig,
    store: Store,
    decoder: Pixels,
    load_encoder: Callable[[], Autoencoder],
    fingerprint: str,
    progress: ProgressFn,
    should_stop: StopFn,
    note: NoteFn = lambda _: None,
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
        note: told if memory does not hold a batch, and pictures go one at a time.

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
        pixels = decoder.pixels(view.sample.path, view.placement, config.background, view.flip, *_decoding(view))
        if latent_key(view, config, fingerprint) != key:
            raise _changed(view.sample)
        return pixels

    stage = Stage(store, names, progress, should_stop)
    missing = set(stage.missing())

    def encode(_sparing: bool) -> None:
        left = missing - stage.ready
        batches = [batch for batch in _batches(first) if not left.isdisjoint(batch.keys)]
        encoder = load_encoder()
        try:
            _Work(stage, encoder, decode, decoder.workers, note).encode(batches, left)
        finally:
            encoder.to("cpu")
            del encoder
            free_gpu()

    if missing:
        with_patience(encode, "Encoding the pictures", note)
    return {view: key for view, key in keys.items() if key in stage.ready}


@dataclass(frozen=True)
class _Batch:
    """Pictures of one bucket, by their keys, that are encoded together; ``size`` rows with those filled up."""

    keys: tuple[str, ...]
    size: int
    pixels: int


def _batches(first: Mapping[str, View]) -> Iterator[_Batch]:
    """All batches of these views. Keys are digests of content: their order knows no file names and no seed."""

    def bucket(key: str) -> tuple[int, int]:
        return first[key].placement.bucket_h, first[key].placement.bucket_w

    for (height, width), group in groupby(sorted(first, key=lambda key: (bucket(key), key)), bucket):
        keys = list(group)
        size = batch_size(first[keys[0]].placement)
        for start in range(0, len(keys), size):
            yield _Batch(tuple(keys[start : start + size]), size, height * width)


def _changed(sample: Sample) -> DatasetError:
    """Pixels of a file that was replaced meanwhile must not be stored under the old file's key."""
    return DatasetError(
        "A picture changed while the run was starting",
        f"{safe_text(sample.name)} is not the file any more that it was when the cache was checked",
        "Start the run again; it takes the file as it is now.",
    )


Latents = tuple[str, dict[str, Tensor]]
"""The key of an entry and what is stored under it."""


class _Work:
    """One pass over batches: decoders ahead, the encoder behind, entries as they come."""

    def __init__(
        self, stage: Stage, encoder: Autoencoder, decode: Callable[[str], np.ndarray], workers: int, note: NoteFn
    ) -> None:
        self._stage, self._encoder, self._decode = stage, encoder, decode
        self._workers, self._note = workers, note
        self._alone = self._freed = False

    def encode(self, batches: Sequence[_Batch], missing: set[str]) -> None:
        """Encode ``batches`` whole and write what is missing of them; ends early on a stop."""
        done: list[Latents] = []
        with (
            ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool,
            closing(self._decoded(batches, pool)) as pictures,
        ):
            for batch in batches:
                rows = dict(islice(pictures, len(batch.keys)))
                if len(rows) < len(batch.keys):
                    return
                # A GPU works on this batch while the one before it is written.
                found = self._latents(list(rows.values()), batch.size)
                if not self._write(done, missing):
                    return
                done = [
                    (key, {name: tensor.cpu() for name, tensor in each.items()})
                    for key, each in zip(batch.keys, found, strict=True)
                ]
            self._write(done, missing)

    def _write(self, done: Sequence[Latents], missing: set[str]) -> bool:
        """Write what is missing of a batch; False after a stop."""
        for key, latents in done:
            if key in missing:
                if self._stage.stopped():
                    return False
                self._stage.put(key, latents)
        return True

    def _decoded(
        self, batches: Sequence[_Batch], pool: ThreadPoolExecutor
    ) -> Generator[tuple[str, np.ndarray], None, None]:
        """Keys and pixels (H, W, 3) uint8, in order, decoded ahead while memory allows; ends early on a stop."""
        waiting: deque[tuple[str, Future[np.ndarray]]] = deque()
        room = AHEAD_BYTES // max(3 * batch.pixels for batch in batches)
        ahead = max(self._workers, min(2 * self._workers + MOST_IN_BATCH, room))
        todo = (key for batch in batches for key in batch.keys)
        try:
            while not self._stage.stopped():
                for key in islice(todo, ahead - len(waiting)):
                    waiting.append((key, pool.submit(self._decode, key)))
                if not waiting:
                    return
                key, pixels = waiting.popleft()
                yield key, pixels.result()
        finally:
            for _, pixels in waiting:
                pixels.cancel()

    def _latents(self, pictures: list[np.ndarray], size: int) -> list[dict[str, Tensor]]:
        """Latents of a batch; one at a time from where the device's memory did not hold a batch, all else freed."""
        while not self._alone:
            try:
                return encode_pixels(pictures, size, self._encoder)
            except RuntimeError as err:
                if size == 1 or not ran_out(err):
                    raise
                reason = first_line(err)
            free_gpu()
            if not self._freed:
                self._freed = True  # kept in mind for all batches: what must be freed for each holds none
                continue
            self._alone = True
            self._note(
                f"The GPU's memory does not hold {size} pictures at once; they are encoded one at a time, which is "
                f"slower and may round the last digits of their latents differently: {reason}"
            )
        return [latents for picture in pictures for latents in encode_pixels([picture], 1, self._encoder)]


def encode_pixels(pictures: Sequence[np.ndarray], size: int, encoder: Autoencoder) -> list[dict[str, Tensor]]:
    """Latents of pictures (H, W, 3) uint8 of one bucket, in a batch of ``size`` rows that grey ones fill up.

    Returns:
        For each picture ``mean`` and ``std`` (16, h, w), float32, where the encoder is.
    """
    height, width, _ = pictures[0].shape
    rows = torch.zeros(size, 3, height, width)
    for row, pixels in zip(rows, pictures, strict=False):
        row.copy_(torch.from_numpy(pixels).permute(2, 0, 1)).div_(127.5).sub_(1.0)
    with torch.no_grad():
        mean, std = (found.float() for found in encoder.encode(rows))
    return [{"mean": mean[row], "std": std[row]} for row in range(len(pictures))]
