"""Text embeddings of every caption: encoded once, kept on disk.

Takes final captions (after trigger word, shuffle and the rest), gives the key of each in a
:class:`~engine.cache.store.Store`. The key covers the caption exactly, so one edited caption costs one embedding,
and the encoder's fingerprint, so another encoder, tokenizer, length or mask setting redoes all. Captions are encoded
one at a time for the reason given in :mod:`engine.cache.latents`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.cache.stage import ProgressFn, Stage, StopFn, out_of_memory
from engine.cache.store import Store, content_key
from engine.models.weights import free_gpu
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.models.family import TextEncoder

TEXT_VERSION = 1
"""Raised when the same caption would be encoded or stored differently."""


def text_key(caption: str, fingerprint: str) -> str:
    """The cache key of a final caption under an encoder."""
    return content_key(kind="text", version=TEXT_VERSION, caption=caption, encoder=fingerprint)


def cache_text(
    captions: Iterable[str],
    store: Store,
    load_encoder: Callable[[], TextEncoder],
    fingerprint: str,
    progress: ProgressFn,
    should_stop: StopFn,
) -> dict[str, str]:
    """Make sure that the embeddings of every caption stand in the store, whole.

    Entries are ``pooled`` (P,) float32, ``states`` (T, C) in bfloat16 if the encoder computes in it, else float32,
    and ``mask`` (T,) bool. Equal captions share one; entries are verified as in
    :func:`~engine.cache.latents.cache_latents`.

    Args:
        load_encoder: called once if anything is missing; its result is closed when this returns.
        fingerprint: the encoder's, known without loading it.
        progress: called per entry, found or encoded.
        should_stop: asked between captions.

    Returns:
        The key of each caption; after a stop only of those whose embeddings stand in the store.

    Raises:
        CacheError: an embedding is not finite, or the GPU's memory does not suffice.
        DiskError: the cache cannot be written.
    """
    keys = {caption: text_key(caption, fingerprint) for caption in captions}
    names = {key: _name(caption) for caption, key in keys.items()}
    stage = Stage(store, names, progress, should_stop)
    missing = set(stage.missing())
    if missing:
        encoder = load_encoder()
        try:
            for caption, key in keys.items():
                if key in missing and not stage.stopped():
                    stage.put(key, encode_caption(caption, encoder))
        except torch.OutOfMemoryError as err:
            raise out_of_memory("Encoding the captions", err) from err
        finally:
            encoder.close()
            del encoder
            free_gpu()
    return {caption: key for caption, key in keys.items() if key in stage.ready}


def encode_caption(caption: str, encoder: TextEncoder) -> dict[str, Tensor]:
    """Embeddings of one caption on the CPU, as :func:`cache_text` stores them."""
    with torch.no_grad():
        embeds = encoder.encode([caption])
    states = embeds.states[0]
    wide = states if states.dtype == torch.bfloat16 else states.float()
    return {"pooled": embeds.pooled[0].float().cpu(), "states": wide.cpu(), "mask": embeds.mask[0].bool().cpu()}


def _name(caption: str) -> str:
    return f'"{safe_text(caption, limit=60)}"'
