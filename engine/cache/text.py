"""Text embeddings of every caption: encoded once, kept on disk.

Takes final captions (after trigger word, shuffle and the rest), gives the key of each in a
:class:`~engine.cache.store.Store`. The key covers the caption exactly, so one edited caption costs one embedding,
and the encoder's fingerprint, so another encoder, tokenizer, length or mask setting redoes all. All missing captions
go to the encoder in one call, which reads its weights as few times as it can and gives each caption the bits that it
would have alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.cache.stage import NoteFn, ProgressFn, Stage, StopFn, with_patience
from engine.cache.store import Store, content_key
from engine.models.weights import free_gpu
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.models.family import TextEmbeds, TextEncoder

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
    note: NoteFn = lambda _: None,
) -> dict[str, str]:
    """Make sure that the embeddings of every caption stand in the store, whole.

    Entries are ``pooled`` (P,) float32, ``states`` (T, C) in bfloat16 if the encoder computes in it, else float32,
    and ``mask`` (T,) bool. Equal captions share one; entries are verified as in
    :func:`~engine.cache.latents.cache_latents`.

    Args:
        load_encoder: called once if anything is missing; its result is closed when this returns.
        fingerprint: the encoder's, known without loading it.
        progress: called per entry, found or encoded; while the encoder works, now and then with what it does.
        should_stop: asked between captions in each layer of the encoder; what it was at is lost then.
        note: told why the encoding was slower than it might have been.

    Returns:
        The key of each caption; after a stop only of those whose embeddings stand in the store.

    Raises:
        CacheError: an embedding is not finite, or the GPU's memory does not suffice.
        DiskError: the cache cannot be written.
    """
    keys = {caption: text_key(caption, fingerprint) for caption in captions}
    names = {key: _name(caption) for caption, key in keys.items()}
    stage = Stage(store, names, progress, should_stop)
    absent = set(stage.missing())

    def encode(sparing: bool) -> None:
        left = [caption for caption, key in keys.items() if key in absent - stage.ready]
        encoder = load_encoder()
        try:
            encoder.sparing = sparing
            _encode_missing(left, keys, stage, encoder)
            if encoder.remark:
                note(encoder.remark)
        finally:
            encoder.close()
            del encoder
            free_gpu()

    if absent:
        with_patience(encode, "Encoding the captions", note)
    return {caption: key for caption, key in keys.items() if key in stage.ready}


class _Stopped(Exception):
    """Ends the encoder's work from within, between two captions of a layer."""


def _encode_missing(captions: Sequence[str], keys: dict[str, str], stage: Stage, encoder: TextEncoder) -> None:
    shown = -1

    def told(done: int, of: int) -> None:
        nonlocal shown
        if stage.stopped():
            raise _Stopped
        if done * 100 // of > shown:
            shown = done * 100 // of
            stage.tell(f"{shown} % of the encoder's work on {len(captions)} captions")

    try:
        for caption, embeds in zip(captions, encoder.encode_each(captions, told), strict=True):
            stage.put(keys[caption], _entry(embeds))
            if stage.stopped():
                return
    except _Stopped:
        return


def _entry(embeds: TextEmbeds) -> dict[str, Tensor]:
    """Embeddings of one caption on the CPU, as :func:`cache_text` stores them."""
    states = embeds.states[0]
    wide = states if states.dtype == torch.bfloat16 else states.float()
    return {"pooled": embeds.pooled[0].float().cpu(), "states": wide.cpu(), "mask": embeds.mask[0].bool().cpu()}


def _name(caption: str) -> str:
    return f'"{safe_text(caption, limit=60)}"'
