"""Two texts compared word by word, and put together again from the parts that were chosen.

Comes in: a caption and another text for it. Goes out: pieces that say the same and pieces that differ; a choice among
the latter gives a text. Taking none of them gives the first text back, taking all the second, to the character.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MOST_WORDS = 3000
"""Texts of more words are one difference: comparing takes the square of their length."""

_WORD = re.compile(r"\s*\S+|\s+\Z")


@dataclass(frozen=True)
class Piece:
    """A part of both texts: ``before`` of the first, ``after`` of the second; equal where they agree."""

    before: str
    after: str

    @property
    def differs(self) -> bool:
        """Whether there is something to choose."""
        return self.before != self.after


def pieces_of(before: str, after: str) -> tuple[Piece, ...]:
    """Compare two texts; the pieces put together are the texts."""
    first, second = _WORD.findall(before), _WORD.findall(after)
    if max(len(first), len(second)) > MOST_WORDS:
        return (Piece(before, after),)
    # The space before a word belongs to it, but does not make it another word.
    matcher = SequenceMatcher(None, [word.strip() for word in first], [word.strip() for word in second], False)
    pieces = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind != "equal":
            pieces.append(Piece("".join(first[i1:i2]), "".join(second[j1:j2])))
            continue
        for old, new in zip(first[i1:i2], second[j1:j2], strict=True):
            if pieces and not pieces[-1].differs and old == new:
                pieces[-1] = Piece(pieces[-1].before + old, pieces[-1].after + new)
            else:
                pieces.append(Piece(old, new))
    return tuple(pieces)


def choices_in(pieces: Sequence[Piece]) -> list[int]:
    """Places of the pieces that differ."""
    return [at for at, piece in enumerate(pieces) if piece.differs]


def merged(pieces: Sequence[Piece], taken: Collection[int]) -> str:
    """The text with the second side of the pieces at ``taken`` and the first of all others.

    Taking only some can leave a space at an end: those are cut.
    """
    text = "".join(piece.after if at in taken else piece.before for at, piece in enumerate(pieces))
    return text if not taken or len(set(taken) & set(choices_in(pieces))) == len(choices_in(pieces)) else text.strip()
