"""Two texts compared word by word, and put together again from the parts that were chosen.

Comes in: a caption and another text for it. Goes out: pieces that say the same and pieces that differ; a choice among
the latter gives a text. Taking none of them gives the first text back, taking all the second, to the character.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine.dataset.text_diff import differences


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
    """Compare two texts; the pieces put together are the texts.

    Differences with nothing but space between them are one: who decides thinks of phrases, not of words.
    """
    pieces: list[Piece] = []
    for span in differences(before, after):
        piece = Piece("" if span.sign == "+" else span.text, "" if span.sign == "-" else span.text)
        if piece.differs and pieces and pieces[-1].differs:
            piece = _joined(pieces.pop(), piece)
        elif piece.differs and len(pieces) > 1 and pieces[-2].differs and not pieces[-1].before.strip():
            space, former = pieces.pop(), pieces.pop()
            piece = _joined(former, space, piece)
        pieces.append(piece)
    return tuple(pieces)


def _joined(*pieces: Piece) -> Piece:
    return Piece("".join(piece.before for piece in pieces), "".join(piece.after for piece in pieces))


def choices_in(pieces: Sequence[Piece]) -> list[int]:
    """Places of the pieces that differ."""
    return [at for at, piece in enumerate(pieces) if piece.differs]


def merged(pieces: Sequence[Piece], taken: Collection[int]) -> str:
    """The text with the second side of the pieces at ``taken`` and the first of all others.

    Taking only some can leave a space at an end: those are cut.
    """
    text = "".join(piece.after if at in taken else piece.before for at, piece in enumerate(pieces))
    return text if not taken or len(set(taken) & set(choices_in(pieces))) == len(choices_in(pieces)) else text.strip()
