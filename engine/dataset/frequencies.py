"""How often tags, and words in a row, occur in the captions of a dataset, and what it means for training.

Counted are captions that hold a word, not its places: a word that one caption repeats is in one caption. The counts
stay, so after an edit only what changed is counted again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from engine.dataset.batch_edits import tags_of

LONGEST = 3
"""Words in a row that are counted together, at most."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_CLAUSE = re.compile(r"[,.;:!?()\[\]\n\"“”|]")

STOP_WORDS = frozenset({
    "a", "an", "the", "of", "in", "on", "at", "to", "and", "or", "is", "are", "was", "with", "for", "from", "by",
    "as", "it", "its", "his", "her", "their", "this", "that", "into", "over",
})  # fmt: skip
"""Words that say nothing alone: a row of these only is not counted."""


@dataclass(frozen=True)
class Frequency:
    """A tag or a row of words, and in how many captions it is."""

    words: str
    count: int
    """Captions that hold it."""
    length: int
    """Words in it."""


def parts_of(text: str, separator: str = ",", tags: bool = False) -> frozenset[str]:
    """What is counted of a caption, without case: its tags, or rows of one to three words within a clause."""
    if tags:
        return frozenset(tag.casefold() for tag in tags_of(text, separator))
    found: set[str] = set()
    for clause in _CLAUSE.split(text.casefold()):
        words = _WORD.findall(clause)
        stop = [word in STOP_WORDS for word in words]
        for at in range(len(words)):
            for length in range(1, min(LONGEST, len(words) - at) + 1):
                # A row that begins or ends with a word that says nothing is a piece of a better one.
                if not stop[at] and not stop[at + length - 1]:
                    found.add(" ".join(words[at : at + length]))
    return frozenset(found)


class Frequencies:
    """Counts over some captions, each under a key of its own.

    Args:
        tags: count tags; else rows of words.
        separator: what stands between tags.
    """

    def __init__(self, tags: bool = False, separator: str = ",") -> None:
        self.tags, self.separator = tags, separator
        self._texts: dict[Hashable, str] = {}
        self._counts: Counter[str] = Counter()

    @property
    def captions(self) -> int:
        """How many captions there are, the empty ones left out."""
        return len(self._texts)

    def take(self, texts: Mapping[Hashable, str]) -> None:
        """Count these captions in place of the former ones; only what is new or changed takes time."""
        for key in [key for key in self._texts if not texts.get(key, "").strip()]:
            self._counts.subtract(self._parts(self._texts.pop(key)))
        for key, text in texts.items():
            before = self._texts.get(key)
            if text != before and text.strip():
                if before is not None:
                    self._counts.subtract(self._parts(before))
                self._texts[key] = text
                self._counts.update(self._parts(text))

    def _parts(self, text: str) -> frozenset[str]:
        return parts_of(text, self.separator, self.tags)

    def most(self, holding: str = "", fewest: int = 1, most: int | None = None) -> list[Frequency]:
        """All counted, the most frequent first; longer rows before their parts where counts are equal.

        Args:
            holding: only those with this in them.
            fewest, most: only those in so many captions.
        """
        wanted = holding.casefold().strip()
        found = [
            (words, count)
            for words, count in self._counts.items()
            if count >= max(1, fewest) and (most is None or count <= most) and wanted in words
        ]
        length = {words: 1 if self.tags else words.count(" ") + 1 for words, _ in found}
        found.sort(key=lambda each: (-each[1], -length[each[0]], each[0]))
        return [Frequency(words, count, length[words]) for words, count in found]

    def meaning(self, frequency: Frequency, trigger: str = "") -> str:
        """What it means for training that it is in so many of the captions."""
        return meaning(frequency.words, frequency.count, self.captions, trigger)


def meaning(words: str, count: int, captions: int, trigger: str = "") -> str:
    """One sentence on what it means for training that ``words`` are in ``count`` of so many captions."""
    if trigger and words == trigger.casefold().strip():
        missing = captions - count
        if not missing:
            return "The trigger word is in every caption, as it should be."
        return f"The trigger word is missing in {missing:,}: training puts it in front of these by itself."
    if captions > 1 and count == captions:
        return (
            "In every caption: it works like a second trigger word, so a prompt without it gets less of what is "
            "learned; leave it out of the captions unless you want that."
        )
    if captions > 1 and count == 1:
        return (
            "In only one caption: the word takes on whatever is special to that one picture; fine for what is "
            "really there once, a slip of the pen if the others show it too."
        )
    if captions > 4 and count >= 0.8 * captions:
        return "In nearly every caption: is it missing in the others because they do not show it, or by oversight?"
    return f"In {count:,} of {captions:,} captions: it can be asked for, and left out, in a prompt."
