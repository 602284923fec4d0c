"""What differs between two texts, word by word: for a line that shows what goes and what comes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")

MOST_WORDS = 400
"""Where more words than these differ in one piece, the piece is told as a whole: pairing them takes their square."""


@dataclass(frozen=True)
class Span:
    """A piece of text: ``=`` in both, ``-`` in the old one alone, ``+`` in the new one alone."""

    sign: str
    text: str


def differences(old: str, new: str) -> tuple[Span, ...]:
    """The pieces of which ``old`` (without ``+``) and ``new`` (without ``-``) consist, in order."""
    first, second = _WORDS.findall(old), _WORDS.findall(new)
    front = _shared(first, second)
    behind = _shared(first[front:][::-1], second[front:][::-1])
    middle = first[front : len(first) - behind], second[front : len(second) - behind]
    spans = [Span("=", "".join(first[:front])), *_middle(*middle), Span("=", "".join(first[len(first) - behind :]))]
    return tuple(span for span in spans if span.text)


def _middle(old: list[str], new: list[str]) -> Iterator[Span]:
    if not old or not new or len(old) > MOST_WORDS or len(new) > MOST_WORDS:
        yield Span("-", "".join(old))
        yield Span("+", "".join(new))
        return
    for sign, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if sign == "equal":
            yield Span("=", "".join(old[i:j]))
        else:
            yield Span("-", "".join(old[i:j]))
            yield Span("+", "".join(new[k:m]))


def _shared(first: list[str], second: list[str]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
