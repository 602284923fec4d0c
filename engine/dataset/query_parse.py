"""What a filter says, as a tree: read by recursive descent, written back, with mistakes told by their column.

    filter = either                     words:   cat  "black dog"  b?ll  sm*ing
    either = both ("OR" both)*          fields:  tag:cat  tokens:>77  stars:3..5  ar:16:9  missing:trigger
    both   = one (["AND"] one)*         \\* \\? \\" \\\\ stand for the signs themselves
    one    = ("NOT" | "-") one | "(" either ")" | word | field

``AND``, ``OR`` and ``NOT`` are operators in capitals only. A parenthesis is one at a word's start or, without its
fellow in the same word, at a word's end: ``img(1).png`` is a word. An open quote ends with the text, and a dash alone
is a word that is still being typed. What the tree finds is said by :mod:`engine.dataset.query`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from engine.dataset.query_fields import FIELDS, MISSING, Kind
from engine.errors import EngineError
from engine.text import safe_text

MOST_DEEP = 60
"""Parentheses and negations inside each other."""

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9]*):(?!//)")
_COMPARED = re.compile(r"(<=|>=|!=|==|=|<|>)?(.*)", re.DOTALL)
_FLAGS = {"": True, "yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}


class QueryError(EngineError):
    """A filter that cannot be read.

    Attributes:
        column: where, counted from 1.
        said: what is wrong there, short and safe to show.
    """

    def __init__(self, at: int, said: str) -> None:
        self.column, self.said = at + 1, safe_text(said, 200)
        super().__init__(
            "The filter cannot be read", f"column {self.column}: {self.said}", "Quotes take signs as they are."
        )


class Wild(Enum):
    """What may stand for characters."""

    MANY = "*"
    ONE = "?"


Pattern = tuple[str | Wild, ...]
"""Texts with wildcards between them."""


@dataclass(frozen=True)
class Text:
    """A pattern in one of the texts; without a field in name and caption."""

    field: str
    pattern: Pattern


@dataclass(frozen=True)
class Compare:
    """A value against a limit, or between two; the limits as they are written."""

    field: str
    operator: str
    low: str
    high: str = ""


@dataclass(frozen=True)
class Flag:
    """Something that is so, or is not."""

    field: str
    wanted: bool


@dataclass(frozen=True)
class Missing:
    """Something that a caption should have."""

    what: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Not:
    """All that ``part`` does not find."""

    part: Node


@dataclass(frozen=True)
class All:
    """What each of ``parts`` finds; everything where there is none."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Any:
    """What one of ``parts`` finds."""

    parts: tuple[Node, ...]


Node = Text | Compare | Flag | Missing | Not | All | Any


def parse(text: str) -> Node:
    """The tree that ``text`` says; the empty :class:`All` where it says nothing.

    Raises:
        QueryError: it cannot be read.
    """
    return _Parser(list(_tokens(text)), len(text)).whole()


def written(node: Node) -> str:
    """A filter that says ``node``."""
    match node:
        case Text(name, pattern):
            return f'{name}{":" if name else ""}"{_escaped(pattern)}"'
        case Compare(name, operator, low, high):
            return f"{name}:{low}..{high}" if high else f"{name}:{operator}{low}"
        case Flag(name, wanted):
            return f"{name}:{'yes' if wanted else 'no'}"
        case Missing(what):
            return f"missing:{what}"
        case Not(part):
            return f"NOT {_inside(part)}"
        case All(parts):
            return " ".join(map(_inside, parts))
        case Any(parts):
            return " OR ".join(map(_inside, parts))


def _inside(node: Node) -> str:
    return f"({written(node)})" if isinstance(node, All | Any) else written(node)


def _escaped(pattern: Pattern) -> str:
    return "".join(part.value if isinstance(part, Wild) else re.sub(r'([*?"\\])', r"\\\1", part) for part in pattern)


@dataclass(frozen=True)
class _Token:
    kind: str
    """``(``, ``)``, ``AND``, ``OR``, ``NOT`` (a dash too), or ``term``."""
    at: int
    node: Node | None = None


def _tokens(text: str) -> Iterator[_Token]:
    at, negated = 0, False
    while at < len(text):
        char = text[at]
        if char.isspace():
            at += 1
        elif char in "()":
            yield _Token(char, at)
            at += 1
        elif char == "-" and not negated:
            at += 1
            if at < len(text) and not text[at].isspace() and text[at] != ")" and text[at : at + 2] not in ('"', '""'):
                negated = text[at] != "("
                yield _Token("NOT", at - 1)
            continue
        else:
            token, at = _term(text, at, negated)
            if token is not None:
                yield token
        negated = False


def _term(text: str, at: int, negated: bool) -> tuple[_Token | None, int]:
    """The word, phrase or field at ``at``, and where it ends; None for an empty phrase."""
    found = _FIELD.match(text, at)
    name = found[1].lower() if found else ""
    if found and name in FIELDS:
        value, _, end = _value(text, found.end())
        return _Token("term", at, _field(name, value, at, found.end())), end
    value, quoted, end = _value(text, at)
    if found and not quoted and (near := difflib.get_close_matches(name, FIELDS, 1, 0.6)):
        raise QueryError(at, f"there is no {name}: but {near[0]}:, and quotes for words")
    if not quoted and not negated and value in ("AND", "OR", "NOT"):
        return _Token(value, at), end
    return (_Token("term", at, Text("", _pattern(value))) if value else None), end


def _value(text: str, at: int) -> tuple[str, bool, int]:
    """What stands at ``at`` as written, whether in quotes, and where it ends."""
    if text[at : at + 1] == '"':
        end = at + 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" and end + 1 < len(text) else 1
        return text[at + 1 : end], True, end + 1
    end, open_ones = at, 0
    while end < len(text) and not text[end].isspace():
        if text[end] == ")" and not open_ones:
            break
        open_ones += (text[end] == "(") - (text[end] == ")")
        end += 1
    return text[at:end], False, end


def _pattern(value: str) -> Pattern:
    parts: list[str | Wild] = []
    at = 0
    while at < len(value):
        char, at = value[at], at + 1
        if char in "*?":
            parts.append(Wild(char))
            continue
        if char == "\\" and at < len(value) and value[at] in '*?"\\':
            char, at = value[at], at + 1
        if parts and isinstance(parts[-1], str):
            parts[-1] += char
        else:
            parts.append(char)
    return tuple(parts)


def _field(name: str, value: str, at: int, value_at: int) -> Node:
    """The condition on the field ``name``.

    Raises:
        QueryError: the field takes no such value.
    """
    kind, example = FIELDS[name].kind, FIELDS[name].example
    if kind is Kind.TEXT:
        if not value:
            raise QueryError(at, f"{name}: wants words, as in {example}")
        return Text(name, _pattern(value))
    if kind is Kind.MISSING:
        if value.lower() not in MISSING:
            raise QueryError(value_at, f"missing: wants {' or '.join(MISSING)}")
        return Missing(value.lower(), at)
    if FIELDS[name].flag and value.lower() in _FLAGS:
        return Flag(name, _FLAGS[value.lower()])
    if kind is Kind.FLAG:
        raise QueryError(value_at, f"{name}: wants nothing, yes or no")
    found = _COMPARED.fullmatch(value)
    assert found is not None
    low, dots, high = found[2].partition("..")
    limits = (low, high) if dots else (low,)
    if not all(kind.read(limit) for limit in limits) or (dots and found[1]):
        raise QueryError(value_at if value else at, f"{name}: wants {kind.words}, as in {example}")
    return Compare(name, {"==": "="}.get(found[1] or "=", found[1] or "="), low, high)


class _Parser:
    """Recursive descent over tokens; ``end`` is the text's length."""

    def __init__(self, tokens: list[_Token], end: int) -> None:
        self._tokens, self._end, self._next = tokens, end, 0

    def whole(self) -> Node:
        """All of the text."""
        if not self._tokens:
            return All(())
        node = self._either(0)
        if self._next < len(self._tokens):  # all else belongs to what stands before it
            raise QueryError(self._tokens[self._next].at, ") without (")
        return node

    def _kind(self) -> str:
        return self._tokens[self._next].kind if self._next < len(self._tokens) else ""

    def _either(self, depth: int) -> Node:
        parts = [self._both(depth)]
        while self._kind() == "OR":
            self._next += 1
            parts.append(self._both(depth))
        return Any(tuple(parts)) if len(parts) > 1 else parts[0]

    def _both(self, depth: int) -> Node:
        parts = [self._one(depth)]
        while self._kind() not in ("", "OR", ")"):
            if self._kind() == "AND":
                self._next += 1
            parts.append(self._one(depth))
        return All(tuple(parts)) if len(parts) > 1 else parts[0]

    def _one(self, depth: int) -> Node:
        if self._next == len(self._tokens):
            last = self._tokens[-1]
            raise QueryError(last.at, f"{last.kind} wants something after it")
        token = self._tokens[self._next]
        if depth > MOST_DEEP:
            raise QueryError(token.at, "too many parentheses")
        self._next += 1
        if token.kind == "NOT":
            return Not(self._one(depth + 1))
        if token.kind == "(":
            node = self._either(depth + 1)
            if self._kind() != ")":
                raise QueryError(token.at, "( without )")
            self._next += 1
            return node
        if token.node is None:
            raise QueryError(token.at, f"nothing before {token.kind}")
        return token.node
