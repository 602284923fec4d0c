"""How many tokens a caption costs in each text encoder, and what does not fit.

Tokenizers and model headers are read by :mod:`engine.models`, imported only where a count is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.config import ModelConfig

CLIP_LIMIT = 77
"""Tokens CLIP-L reads, begin and end included; it gives FLUX.1 one pooled vector, so an overflow is mild."""

_T5_LIMITS = {"schnell": 256}
_T5_LIMIT = 512


class Tokenizer(Protocol):
    """What counting needs of a tokenizer."""

    def count(self, text: str) -> int:
        """Tokens of ``text`` with the special ones, uncut."""

    def cut(self, text: str, length: int) -> int | None:
        """The character at which the first token begins that ``length`` has no room for; None where all fit."""

    def pieces(self, word: str) -> list[str]:
        """What a word is taken apart into, as plain text."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens of one caption, special ones included."""

    clip: int
    t5: int


@dataclass(frozen=True)
class Measured:
    """What one caption costs, and from which of its characters on each encoder reads no more (None: it reads all)."""

    clip: int
    t5: int
    clip_cut: int | None = None
    t5_cut: int | None = None


def measure(caption: str, trained_on: str, clip: Tokenizer, t5: Tokenizer, limits: tuple[int, int]) -> Measured:
    """Count a caption, and find where it is cut.

    Args:
        caption: as it is written.
        trained_on: the text made of it (:func:`engine.dataset.captions.final_caption`), which is what is cut.
        clip: CLIP's tokenizer.
        t5: T5's.
        limits: tokens that CLIP and T5 read.
    """
    cuts = (clip.cut(trained_on, limits[0]), t5.cut(trained_on, limits[1]))
    places = [None if cut is None else _place_in(caption, trained_on, cut) for cut in cuts]
    return Measured(clip.count(trained_on), t5.count(trained_on), *places)


def _place_in(caption: str, trained_on: str, cut: int) -> int:
    """The character of ``caption`` that stands at ``cut`` in the text made of it.

    A caption is joined to one line, and words are put around it. Where it is not found as it stands (wildcards were
    resolved), the place is counted from the front.
    """
    before = len(caption) - len(caption.lstrip())
    start = max(0, trained_on.find(" ".join(caption.strip().splitlines())))
    return max(0, min(before + cut - start, len(caption)))


def count_tokens(texts: Sequence[str], clip: Tokenizer, t5: Tokenizer) -> list[TokenCount]:
    """Count each text; equal texts are counted once."""
    counts = {text: TokenCount(clip.count(text), t5.count(text)) for text in dict.fromkeys(texts)}
    return [counts[text] for text in texts]


def load_tokenizers(config: ModelConfig, download: bool = False) -> tuple[Tokenizer, Tokenizer]:
    """CLIP's and T5's tokenizer for a run's model files.

    Raises:
        ModelFileError: one is not found; the hint says which files to put where.
    """
    from engine.models.tokenizers import load_clip_tokenizer, load_t5_tokenizer

    clip = load_clip_tokenizer(config.clip_l, config.clip_tokenizer, download)
    return clip, load_t5_tokenizer(config.t5, config.t5_tokenizer, download)


def t5_limit(config: ModelConfig) -> int:
    """Tokens T5 reads for the model: what the settings say, else 256 for schnell and 512 for dev.

    Raises:
        ModelFileError: the transformer's header cannot be read.
    """
    from engine.models.detect import detect

    if config.t5_length:
        return config.t5_length
    return _T5_LIMITS.get(detect(config.transformer).variant, _T5_LIMIT)
