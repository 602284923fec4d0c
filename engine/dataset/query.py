"""Finding pictures by words: what is typed into a filter, and what it finds.

Words stand for themselves, in any case and order, anywhere in name or caption; all of them must occur. Words in
double quotes belong together, and a ``-`` in front leaves out what holds the word. There is nothing to get wrong: an
open quote ends with the text, so a filter can be applied as it is typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


def folded(text: str) -> str:
    """``text`` as it is compared: without case, accents spelled in one way."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())


def haystack(name: str, caption: str) -> str:
    """What a picture is searched in; made once and kept, since folding costs more than searching."""
    return folded(f"{name}\n{caption}")


@dataclass(frozen=True)
class Query:
    """A filter, ready to be applied to many haystacks."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()

    def matches(self, haystack: str) -> bool:
        """Whether all wanted words and none of the unwanted occur in a text made by :func:`haystack`."""
        return all(word in haystack for word in self.wanted) and not any(word in haystack for word in self.unwanted)


def needles(text: str) -> Query:
    """The query that ``text`` says; the empty one matches everything."""
    found: dict[str, list[str]] = {"": [], "-": []}
    for sign, phrase, word in _TERM.findall(text):
        # A lone dash is a word that is still being typed.
        if phrase or word:
            found[sign].append(folded(phrase or word))
    return Query(tuple(found[""]), tuple(found["-"]))


def matcher(text: str) -> Callable[[str, str], bool]:
    """``text`` as a test of name and caption, for few pictures; for many keep their haystacks."""
    query = needles(text)
    return lambda name, caption: query.matches(haystack(name, caption))
