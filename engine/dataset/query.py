"""Finding pictures: what a filter finds, compiled once and asked of many pictures.

Words stand for themselves, in any case and order, anywhere in name or caption; all of them must occur. Words in
double quotes belong together, and a ``-`` in front leaves out what holds the word. Fields (``tag:cat``,
``tokens:>77``), ``AND``, ``OR``, ``NOT`` and parentheses are read by :mod:`engine.dataset.query_parse`. Of a picture
of which something is not known yet, a comparison with it does not hold.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.dataset.captions import trigger_pattern
from engine.dataset.query_fields import FIELDS, Limit
from engine.dataset.query_parse import All, Any, Compare, Flag, Missing, Node, Not, QueryError, Text, parse
from engine.dataset.query_wild import inside, whole

SAME_RATIO = 0.01
"""Part by which ratios may differ and count as the same: bucket and camera round them."""


def folded(text: str) -> str:
    """``text`` as it is compared: without case, accents spelled in one way."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())


def haystack(name: str, caption: str) -> str:
    """What a picture is searched in; made once and kept, since folding costs more than searching."""
    return folded(f"{name}\n{caption}")


class Searched(Protocol):
    """What a picture is asked for."""

    path: Path
    haystack: str
    caption: str | None
    width: int
    height: int
    bucket: tuple[int, int] | None
    clip: int | None
    t5: int | None
    stars: int
    excluded: bool
    repeats: int
    own_repeats: int | None
    sharp: int | None
    twin: int
    edited: bool
    loss: float | None
    marked: bool
    regularization: bool


Test = Callable[[Searched], bool]


@dataclass(frozen=True)
class Query:
    """A filter, ready to be asked of many pictures; ``everything`` says that there is nothing to ask."""

    matches: Test
    everything: bool = False


EVERYTHING = Query(lambda picture: True, everything=True)


def query_of(text: str, trigger: str = "", separator: str = ",") -> Query:
    """The query that ``text`` says; the empty one finds everything.

    Args:
        text: as typed.
        trigger: the trigger word that ``missing:trigger`` looks for.
        separator: what stands between a caption's tags.

    Raises:
        QueryError: it cannot be read; the error names the column.
    """
    node = parse(text)
    return Query(_Compiler(trigger.strip(), separator.strip()).test(node), node == All(()))


@dataclass(frozen=True)
class _Compiler:
    trigger: str
    separator: str

    def test(self, node: Node) -> Test:
        """``node`` as a function."""
        match node:
            case Text():
                return self._text(node)
            case Compare():
                return self._compare(node)
            case Flag():
                return _flag(node)
            case Missing():
                return self._missing(node)
            case Not(part):
                inner = self.test(part)
                return lambda picture: not inner(picture)
            case All(parts):
                return _all([self.test(part) for part in parts])
            case Any(parts):
                tests = [self.test(part) for part in parts]
                return lambda picture: any(test(picture) for test in tests)

    def _text(self, node: Text) -> Test:
        pattern = tuple(folded(part) if isinstance(part, str) else part for part in node.pattern)
        if node.field == "tag":
            is_tag, cut = whole(pattern), folded(self.separator)
            return lambda picture: any(map(is_tag, _tags(picture.haystack.partition("\n")[2], cut)))
        found = inside(pattern)
        if node.field == "caption":
            return lambda picture: found(picture.haystack.partition("\n")[2])
        if node.field == "name":
            return lambda picture: found(picture.haystack.partition("\n")[0].rpartition("/")[2])
        if node.field == "path":
            return lambda picture: found(folded(str(picture.path)))
        if len(pattern) == 1 and isinstance(pattern[0], str):  # the usual case: it cannot reach over the line's end
            needle = pattern[0]
            return lambda picture: needle in picture.haystack
        return lambda picture: any(map(found, picture.haystack.split("\n", 1)))

    def _compare(self, node: Compare) -> Test:
        kind = FIELDS[node.field].kind
        low, high = kind.read(node.low), kind.read(node.high)
        order = _tag_order(self.separator) if node.field == "tags" else _ORDERS[node.field]
        assert low is not None
        if high is not None:
            lowest, highest = low, high

            def between(picture: Searched) -> bool:
                above = order(picture, lowest)
                below = order(picture, highest)
                return above is not None and below is not None and above >= 0 >= below

            return between
        limit, holds = low, _OPERATORS[node.operator]
        return lambda picture: (sign := order(picture, limit)) is not None and holds(sign, 0)

    def _missing(self, node: Missing) -> Test:
        if node.what == "caption":
            return lambda picture: picture.caption is None
        if not self.trigger:
            raise QueryError(node.at, "no trigger word is set")
        there = trigger_pattern(self.trigger)
        return lambda picture: not picture.regularization and not there.search(picture.caption or "")


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda picture: all(test(picture) for test in tests)


def _tags(caption: str, separator: str) -> list[str]:
    tags = caption.split(separator) if separator else [caption]
    return [tag for part in tags if (tag := part.strip())]


Order = Callable[[Searched, Limit], float | None]
"""Above 0 where the picture's value is more than the limit, 0 where it is the same, None where it is not known."""

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, "=": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


def _number(value: Callable[[Searched], float | None]) -> Order:
    def order(picture: Searched, limit: Limit) -> float | None:
        number = value(picture)
        return None if number is None else number - limit[0]

    return order


def _tag_order(separator: str) -> Order:
    return _number(lambda picture: len(_tags(picture.caption or "", separator)))


def _size(value: Callable[[Searched], tuple[int, int] | None]) -> Order:
    def order(picture: Searched, limit: Limit) -> float | None:
        size = value(picture)
        if size is None or not size[0]:
            return None
        if len(limit) == 1:
            return round((size[0] * size[1]) ** 0.5) - limit[0]
        if size == limit:
            return 0.0
        # Of as many pixels but another shape: neither the same nor less.
        return size[0] * size[1] - limit[0] * limit[1] or 0.5

    return order


def _ratio(picture: Searched, limit: Limit) -> float | None:
    if not picture.width or not picture.height:
        return None
    part = picture.width / picture.height / limit[0] - 1.0
    return 0.0 if abs(part) <= SAME_RATIO else part


_ORDERS: dict[str, Order] = {
    "chars": _number(lambda picture: len(picture.caption or "")),
    "tokens": _number(lambda picture: picture.clip),
    "t5": _number(lambda picture: picture.t5),
    "res": _size(lambda picture: (picture.width, picture.height)),
    "bucket": _size(lambda picture: picture.bucket),
    "ar": _ratio,
    "stars": _number(lambda picture: picture.stars),
    "sharp": _number(lambda picture: picture.sharp),
    "loss": _number(lambda picture: picture.loss),
    "repeats": _number(lambda picture: picture.own_repeats or picture.repeats),
    "dup": _number(lambda picture: picture.twin or None),
}

_FLAGS: dict[str, Test] = {
    "dup": lambda picture: picture.twin > 0,
    "empty": lambda picture: not (picture.caption or "").strip(),
    "edited": lambda picture: picture.edited,
    "excluded": lambda picture: picture.excluded,
    "marked": lambda picture: picture.marked,
}


def _flag(node: Flag) -> Test:
    holds, wanted = _FLAGS[node.field], node.wanted
    return holds if wanted else lambda picture: not holds(picture)
