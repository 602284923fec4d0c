"""Cached latents and embeddings on their way into a batch: read once, kept while memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from engine.batches import MicroBatch
from engine.cache.latents import View
from engine.cache.store import Store
from engine.draws import torch_generator
from engine.errors import CacheError
from engine.models.family import TextEmbeds
from engine.training.flow import mask_weights

KEEP_BYTES = 2 * 2**30
"""Entries up to this much are kept in host memory."""


class Entries:
    """Reads cache entries for batches, with a memory of the latest ones.

    Attributes:
        latents: cache key by view.
        texts: cache key by caption.
        masks: cache key by view, of those that have a mask.
        outside: weight of the loss where a mask is black.
    """

    def __init__(
        self,
        store: Store,
        latents: dict[View, str],
        texts: dict[str, str],
        seed: int,
        masks: Mapping[View, str] = MappingProxyType({}),
        outside: float = 1.0,
    ) -> None:
        self.store = store
        self.latents = latents
        self.texts = texts
        self.seed = seed
        self.masks = masks
        self.outside = outside
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0

    def forget(self) -> None:
        """Read every entry anew from the disk, where its checksum is looked at."""
        self._kept.clear()
        self._bytes = 0

    def batch_latents(self, micro: MicroBatch, step: int, number: int) -> Tensor:
        """Latents (B, C, h, w) float32, drawn from each picture's posterior anew every time it is seen."""
        rows = []
        for item in micro.items:
            entry = self._read(self.latents[item.view], item.view.sample.name)
            generator = torch_generator(self.seed, "posterior", step, number, item.slot)
            noise = torch.randn(entry["mean"].shape, generator=generator)
            rows.append(entry["mean"] + entry["std"] * noise)
        return torch.stack(rows)

    def mean_latents(self, view: View) -> Tensor:
        """Latents (C, h, w) float32 of one picture without a draw: the mean of its posterior."""
        return self._read(self.latents[view], view.sample.name)["mean"]

    def mask(self, view: View) -> Tensor | None:
        """Weights (1, h, w) float32 of the loss on one picture, see :func:`~engine.training.flow.mask_weights`;
        None where all of it counts."""
        key = self.masks.get(view)
        return None if key is None else mask_weights(self._read(key, view.sample.name)["mask"], self.outside)

    def batch_masks(self, micro: MicroBatch) -> Tensor | None:
        """Weights (B, 1, h, w) float32 of a micro-batch's losses; None where all of all pictures counts."""
        found = [self.mask(item.view) for item in micro.items]
        size = next((mask.shape for mask in found if mask is not None), None)
        if size is None:
            return None
        return torch.stack([torch.ones(size) if mask is None else mask for mask in found])

    def batch_text(self, captions: list[str]) -> TextEmbeds:
        """Embeddings of ``captions`` stacked along the batch."""
        rows = [self._read(self.texts[caption], f"caption {caption!r}") for caption in captions]
        return TextEmbeds(*(torch.stack([row[name] for row in rows]) for name in ("pooled", "states", "mask")))

    def batch_pooled(self, captions: list[str]) -> Tensor:
        """The pooled part (B, P) of :meth:`batch_text` alone."""
        return torch.stack([self._read(self.texts[text], f"caption {text!r}")["pooled"] for text in captions])

    def _read(self, key: str, what: str) -> dict[str, Tensor]:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        entry = self.store.get(key)
        if entry is None:
            raise CacheError(
                "A cache entry is gone or damaged",
                f"that of {what}, verified when the run started",
                "Something else changed the cache folder. Resume the run: the entry is made again.",
            )
        self._kept[key] = entry
        self._bytes += _size(entry)
        while self._bytes > KEEP_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return entry


def _size(entry: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
