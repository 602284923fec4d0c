"""FLUX.1's text encoder: CLIP-L and T5 with their tokenizers, as one.

Captions in, a pooled state, token states and a mask out. Files that are each in order and do not belong together are
refused here. Stands apart from the family because how captions pass through two encoders is nobody else's business.

Shapes: B captions, T tokens, C width, P pooled width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.errors import ModelFileError
from engine.models.detect import ModelInfo
from engine.models.t5_layers import T5Encoder, ToldFn
from engine.models.text_encoders import ClipTextEncoder
from engine.models.tokenizers import ClipTokenizer, T5Tokenizer, load_clip_tokenizer, load_t5_tokenizer
from engine.models.transfer import to_device
from engine.models.weights import free_gpu
from engine.text import safe_text


@dataclass(frozen=True)
class TextEmbeds:
    """Encoded captions: ``pooled`` (B, P), ``states`` (B, T, C), ``mask`` (B, T) bool, True on real tokens."""

    pooled: Tensor
    states: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> TextEmbeds:
        """The same on another device; a GPU copies while the host goes on."""
        return TextEmbeds(*(to_device(part, device) for part in (self.pooled, self.states, self.mask)))


class FluxTextEncoder:
    """CLIP-L and T5 with their tokenizers: captions to pooled state, token states and mask.

    Attributes:
        sparing: whether T5 is to use as little of the device's memory as it can, if that takes longer.
    """

    sparing = False

    def __init__(
        self,
        clip: ClipTextEncoder,
        t5: T5Encoder,
        clip_tokenizer: ClipTokenizer,
        t5_tokenizer: T5Tokenizer,
        length: int,
        masked: bool,
        fingerprint: str,
    ) -> None:
        self._models: tuple[ClipTextEncoder, T5Encoder] | None = (clip, t5)
        self._clip_tokenizer, self._t5_tokenizer = clip_tokenizer, t5_tokenizer
        self._length, self._masked = length, masked
        self.fingerprint = fingerprint
        self.remark = ""

    def encode(self, captions: Sequence[str]) -> TextEmbeds:
        """Embeddings of all captions together, on the CPU; see :meth:`encode_each`."""
        rows = list(self.encode_each(captions))
        return TextEmbeds(*(torch.cat([getattr(row, name) for row in rows]) for name in ("pooled", "states", "mask")))

    def encode_each(self, captions: Sequence[str], told: ToldFn | None = None) -> Iterator[TextEmbeds]:
        """Encode captions one by one: kernels may round differently for other batch sizes, and a cached
        embedding must not depend on which captions it was encoded with.

        T5's file is read once for as many captions as a share of the host's memory holds. ``told`` hears
        (done, of) in captions times layers.

        Raises:
            ValueError: no captions, or the encoder was closed.
        """
        if self._models is None or not captions:
            raise ValueError("nothing to encode" if self._models else "the text encoder was closed")
        t5 = self._models[1]
        size, layers = t5.captions_at_once(self._length), t5.sizes.layers
        for start in range(0, len(captions), size):

            def shifted(done: int, _of: int, before: int = start) -> None:
                if told is not None:
                    told(before * layers + done, len(captions) * layers)

            yield from self._encode_pass(self._models, captions[start : start + size], shifted)

    def _encode_pass(
        self, models: tuple[ClipTextEncoder, T5Encoder], captions: Sequence[str], told: ToldFn
    ) -> Iterator[TextEmbeds]:
        clip, t5 = models
        pooled, ids, masks = [], [], []
        clip.net.to(t5.device)
        for caption in captions:
            clip_ids, _ = self._clip_tokenizer.encode([caption], clip.sizes.positions)
            t5_ids, t5_mask = self._t5_tokenizer.encode([caption], self._length)
            pooled.append(clip.encode_ids(torch.tensor(clip_ids)).cpu())
            ids += t5_ids
            masks += t5_mask
        clip.net.to("cpu")  # T5's layers need the room
        mask = torch.tensor(masks)
        t5.sparing = self.sparing
        states = t5.encode_ids(torch.tensor(ids), mask if self._masked else None, told)
        self.remark = t5.remark
        for row, vector in enumerate(pooled):
            yield TextEmbeds(vector, states[row : row + 1], mask[row : row + 1])

    def close(self) -> None:
        """Free the weights."""
        self._models = None
        free_gpu()


def flux_tokenizers(config: ModelConfig) -> tuple[ClipTokenizer, T5Tokenizer]:
    """CLIP's and T5's tokenizers for the encoders that ``config`` names.

    Raises:
        ModelFileError: one is not found, or damaged.
    """
    download = config.download_tokenizers
    return (
        load_clip_tokenizer(config.clip_l, config.clip_tokenizer, download),
        load_t5_tokenizer(config.t5, config.t5_tokenizer, download),
    )


def check_text_parts(
    config: ModelConfig,
    info: ModelInfo,
    clip: ClipTextEncoder,
    t5: T5Encoder,
    clip_tokenizer: ClipTokenizer,
    t5_tokenizer: T5Tokenizer,
) -> None:
    """Refuse files that are each in order and do not belong together: they train on noise, or fail in a kernel.

    Raises:
        ModelFileError: a width or a vocabulary that does not fit another.
    """

    def refuse(path: Path, detail: str) -> None:
        raise ModelFileError(
            "The model's parts do not fit together",
            f"{safe_text(path, 400)}: {detail}",
            "Take the text encoders and tokenizers that were published with the transformer.",
        )

    if clip_tokenizer.vocab_size != clip.sizes.vocab_size:
        refuse(config.clip_l, f"{clip.sizes.vocab_size} tokens, its tokenizer has {clip_tokenizer.vocab_size}")
    if t5_tokenizer.vocab_size > t5.sizes.vocab_size:
        refuse(config.t5, f"{t5.sizes.vocab_size} tokens, its tokenizer has {t5_tokenizer.vocab_size}")
    if clip.sizes.hidden_size != info.params["vec_in_dim"]:
        refuse(config.clip_l, f"states are {clip.sizes.hidden_size} wide, expected {info.params['vec_in_dim']}")
    if t5.sizes.d_model != info.params["context_in_dim"]:
        refuse(config.t5, f"states are {t5.sizes.d_model} wide, expected {info.params['context_in_dim']}")
