"""Misspelt words of a caption, by lists of words: the system's or one of the user's, and the user's own additions.

Comes in: files of words, one a line. Goes out: where a text has words that no list knows. There is no grammar and no
guess here: a word is known or it is not. Without a list nothing is misspelt.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.regular import read_limited
from engine.dataset.vocabulary import WORD
from engine.errors import DatasetError
from engine.files import atomic_write
from engine.text import safe_text

SYSTEM_LIST = Path("/usr/share/dict/words")
MAX_BYTES = 64 * 2**20
"""A list of all inflected forms of a language is a tenth of it."""

_LEAST = 3
"""Shorter words are not looked at: abbreviations, units."""
_PLAIN = re.compile(r"[a-zß-öø-ÿœšž]+", re.IGNORECASE)
"""Words of other scripts are none of these lists' business."""


@dataclass(frozen=True)
class Speller:
    """Lists of words, in small letters.

    Attributes:
        words: what a word list has.
        own: what the user added.
        allowed: what is right here though no list has it: the trigger word, what many captions use.
    """

    words: Collection[str] = frozenset()
    own: Collection[str] = frozenset()
    allowed: Collection[str] = frozenset()

    def knows(self, word: str) -> bool:
        """Whether ``word`` is spelt right, or cannot be judged."""
        if len(word) < _LEAST or word[1:] != word[1:].lower() or not self.words:
            return True  # with capitals inside: a name, an abbreviation
        plain = word.lower().replace("’", "'")
        stem = plain.removesuffix("'s").rstrip("'")
        if not _PLAIN.fullmatch(stem.replace("'", "")):
            return True
        return any(form in some for form in {plain, stem} for some in (self.words, self.own, self.allowed))

    def misspelt(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every misspelt word. A part of something longer (a tag's name, an address) is none."""
        return [
            match.span()
            for match in WORD.finditer(text)
            if not _joined(text, *match.span()) and not self.knows(match[0])
        ]


_JOINS = "_0123456789/@\\[]{}|<>"
"""Beside a word these make it a part of a name, a slot or a wildcard."""


def _joined(text: str, start: int, end: int) -> bool:
    """Whether something beside the word makes it a part of another thing."""
    beside = text[max(0, start - 1) : start] + text[end : end + 1]
    return any(sign in _JOINS for sign in beside)


def read_words(path: Path) -> frozenset[str]:
    """The words of a file, in small letters; lines that hold more than a word are left out.

    Raises:
        DatasetError: it cannot be read, or is too large for a list of words.
    """
    data = read_limited(path, MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise DatasetError("A word list is too long", f"{safe_text(path)}: more than 64 MB", "Is it the right file?")
    lines = data.decode("utf-8", "replace").lower().replace("’", "'").split("\n")
    # What affix dictionaries have behind a slash is left away.
    return frozenset(word for line in lines if (word := line.partition("/")[0].strip()) and " " not in word)


def add_word(path: Path, word: str) -> None:
    """Add a word to the user's own list, which is made where there is none; what stands there stays.

    Raises:
        DatasetError: what stands there cannot be read.
        DiskError: it could not be written.
    """
    data = read_limited(path, MAX_BYTES) if path.exists() else b""
    if data and not data.endswith(b"\n"):
        data += b"\n"
    atomic_write(path, data + word.encode("utf-8", "replace") + b"\n")
