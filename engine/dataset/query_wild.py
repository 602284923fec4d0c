"""Texts with wildcards, matched in time that grows with the text alone, whatever the pattern.

``*`` cuts a pattern into pieces, which are looked for one after the other, each as early as it can be: a pattern that
matches at all matches so. A regular expression with many ``.*`` would try every way to place them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from engine.dataset.query_parse import Pattern, Wild

Find = Callable[[str, int], int]
"""Where a piece ends that begins at or after a place; -1 where there is none."""


def inside(pattern: Pattern) -> Callable[[str], bool]:
    """Whether ``pattern`` occurs anywhere in a text."""
    if len(pattern) == 1 and isinstance(pattern[0], str):
        needle = pattern[0]
        return lambda text: needle in text
    finds = [_finder(piece) for piece in _pieces(pattern) if piece]
    return lambda text: _in_order(finds, text, 0) >= 0


def whole(pattern: Pattern) -> Callable[[str], bool]:
    """Whether ``pattern`` is all of a text."""
    pieces = _pieces(pattern)
    first, last = _expression(pieces[0]), _expression(pieces[-1])
    if len(pieces) == 1:
        return lambda text: first.fullmatch(text) is not None
    shortest, ending = _length(pieces[0]), _length(pieces[-1])
    finds = [_finder(piece) for piece in pieces[1:-1] if piece]

    def matches(text: str) -> bool:
        end = len(text) - ending
        if end < shortest or not first.match(text) or not last.fullmatch(text, end):
            return False
        return 0 <= _in_order(finds, text, shortest) <= end

    return matches


def _pieces(pattern: Pattern) -> list[Pattern]:
    """What stands between the stars; one piece more than there are stars."""
    pieces: list[list[str | Wild]] = [[]]
    for part in pattern:
        if part is Wild.MANY:
            pieces.append([])
        else:
            pieces[-1].append(part)
    return [tuple(piece) for piece in pieces]


def _length(piece: Pattern) -> int:
    return sum(len(part) if isinstance(part, str) else 1 for part in piece)


def _expression(piece: Pattern) -> re.Pattern[str]:
    return re.compile("".join(re.escape(part) if isinstance(part, str) else "." for part in piece), re.DOTALL)


def _finder(piece: Pattern) -> Find:
    if len(piece) == 1 and isinstance(piece[0], str):
        needle = piece[0]
        return lambda text, start: at + len(needle) if (at := text.find(needle, start)) >= 0 else -1
    expression = _expression(piece)
    return lambda text, start: found.end() if (found := expression.search(text, start)) else -1


def _in_order(finds: Sequence[Find], text: str, start: int) -> int:
    for find in finds:
        start = find(text, start)
        if start < 0:
            return -1
    return start
