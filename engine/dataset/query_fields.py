"""The fields that a filter knows: what they are called, what they want, and what is said of them.

One table serves the parser, its errors, the completion of names, and the help.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_NUMBER = r"\d{1,12}(?:\.\d{1,6})?"
_SIZE = re.compile(rf"(\d{{1,6}})[xX×](\d{{1,6}})|({_NUMBER})", re.ASCII)
_RATIO = re.compile(rf"({_NUMBER})(?:[:/]({_NUMBER}))?", re.ASCII)

Limit = tuple[float, ...]
"""A number, a ratio as a number, or a width and height."""


def _number(text: str) -> Limit | None:
    return (float(text),) if re.fullmatch(_NUMBER, text, re.ASCII) else None


def _size(text: str) -> Limit | None:
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    return (float(found[3]),) if found[3] else (float(found[1]), float(found[2]))


def _ratio(text: str) -> Limit | None:
    found = _RATIO.fullmatch(text)
    parts = [float(part) for part in found.groups() if part] if found else []
    if not parts or not all(parts):
        return None
    return (parts[0] / parts[1] if len(parts) > 1 else parts[0],)


class Kind(Enum):
    """What stands after a field's colon."""

    TEXT = "words"
    FLAG = "yes or no"
    MISSING = "a name"
    NUMBER = "a number"
    SIZE = "a side or a size"
    RATIO = "a ratio"

    @property
    def words(self) -> str:
        """What an error says is wanted."""
        return self.value

    def read(self, text: str) -> Limit | None:
        """The limit that ``text`` says; None where it says none."""
        reader = {Kind.NUMBER: _number, Kind.SIZE: _size, Kind.RATIO: _ratio}.get(self)
        return reader(text) if reader else None


@dataclass(frozen=True)
class Field:
    """One field."""

    kind: Kind
    example: str
    help: str
    flag: bool = False
    """It is also a question: alone, with ``yes`` or with ``no``."""


FIELDS: dict[str, Field] = {
    "tag": Field(Kind.TEXT, 'tag:"red coat"', "one of the caption's tags, whole; tag:*coat ends in it"),
    "caption": Field(Kind.TEXT, "caption:smil", "somewhere in the caption"),
    "name": Field(Kind.TEXT, "name:img_0", "somewhere in the file's name"),
    "path": Field(Kind.TEXT, "path:portraits/", "somewhere in the whole path"),
    "tags": Field(Kind.NUMBER, "tags:>5", "how many tags"),
    "chars": Field(Kind.NUMBER, "chars:<100", "characters of the caption"),
    "tokens": Field(Kind.NUMBER, "tokens:>77", "tokens that CLIP counts"),
    "t5": Field(Kind.NUMBER, "t5:>512", "tokens that T5 counts"),
    "res": Field(Kind.SIZE, "res:<1024", "as many pixels as a square of that side; res:640x480 is that size"),
    "ar": Field(Kind.RATIO, "ar:16:9", "width to height, to 1 %; ar:<1 is upright"),
    "bucket": Field(Kind.SIZE, "bucket:832x1216", "the bucket; a side alone compares pixels as res does"),
    "stars": Field(Kind.NUMBER, "stars:>=3", "stars given"),
    "sharp": Field(Kind.NUMBER, "sharp:<10", "how sharp, 0 to 100, among the pictures here"),
    "loss": Field(Kind.NUMBER, "loss:>0.5", "loss as measured last"),
    "repeats": Field(Kind.NUMBER, "repeats:>1", "times an epoch"),
    "dup": Field(Kind.NUMBER, "dup:", "has near duplicates; dup:2 is the second group", flag=True),
    "empty": Field(Kind.FLAG, "empty:", "no caption, or an empty one", flag=True),
    "edited": Field(Kind.FLAG, "edited:", "its caption was changed here", flag=True),
    "excluded": Field(Kind.FLAG, "excluded:no", "kept out of training", flag=True),
    "marked": Field(Kind.FLAG, "marked:", "marked", flag=True),
    "missing": Field(Kind.MISSING, "missing:trigger", "the caption lacks the trigger word; missing:caption: no file"),
}

MISSING = ("trigger", "caption")
"""What ``missing:`` can be asked for."""
