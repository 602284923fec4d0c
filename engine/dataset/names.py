"""Names of pictures that make trouble elsewhere: told, never changed, and no reason to leave a picture out.

Comes in: a folder's names. Goes out: problems. What a name is made of is nobody's business while it is only opened;
but a name that is no text, that nobody sees or that another system takes for a second one's is worth knowing before
the folder is copied.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from engine.dataset.problems import Problem, problem
from engine.text import safe_text

MAX_NAME_BYTES = 240
"""Longer names leave no room for what programs put in front of or behind them: file systems take 255 bytes."""

_RENAME = "Rename it, and its caption with it."


def name_problems(directory: str, names: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with the names of a folder's pictures; warnings all."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_as_elsewhere(name)].append(name)
        if reason := _reason(name):
            yield problem(os.path.join(directory, name), "odd-name", "warning", f"Its name {reason}", _RENAME)
    for same in alike.values():
        if len(same) > 1:
            message = f"{' and '.join(sorted(same))} differ only in capitals or in how accents are spelled"
            hint = "On macOS and Windows they are one file: rename all but one before you copy the folder."
            yield problem(os.path.join(directory, same[0]), "alike-names", "warning", message, hint)


def _as_elsewhere(name: str) -> str:
    """Equal for names that a file system without capitals and with one spelling of accents takes for one."""
    return (
        name.lower()
        if name.isascii()
        else unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    )


def _reason(name: str) -> str:
    """What is odd about a name; empty for nearly all."""
    reasons = []
    stem = os.path.splitext(name)[0]
    if stem != stem.strip() or stem.endswith("."):
        reasons.append("begins or ends with a space or a dot")
    if not (name.isascii() and name.isprintable()):
        try:
            name.encode()
        except UnicodeEncodeError:
            reasons.append("is not valid UTF-8")
        if safe_text(name) != name:
            reasons.append("holds characters that cannot be seen, or that a terminal obeys")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        reasons.append(f"has more than {MAX_NAME_BYTES} bytes")
    return " and ".join(reasons)
