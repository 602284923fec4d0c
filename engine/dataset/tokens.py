"""How many tokens a caption costs in each text encoder, and what does not fit.

The tokenizers are passed in (:mod:`engine.models.tokenizers` finds them), so counting needs no files of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

CLIP_LIMIT = 77
"""Tokens CLIP-L reads, begin and end included; it gives FLUX.1 one pooled vector, so an overflow is mild."""


class Tokenizer(Protocol):
    """What counting needs of a tokenizer."""

    def count(self, text: str) -> int:
        """Tokens of ``text`` with the special ones, uncut."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens of one caption, special ones included."""

    clip: int
    t5: int


def count_tokens(texts: Sequence[str], clip: Tokenizer, t5: Tokenizer) -> list[TokenCount]:
    """Count each text; equal texts are counted once."""
    counts = {text: TokenCount(clip.count(text), t5.count(text)) for text in dict.fromkeys(texts)}
    return [counts[text] for text in texts]
