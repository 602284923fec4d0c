"""The words and tags that a dataset's own captions use, counted, and what a beginning may become of them.

Comes in: captions. Goes out: how many captions hold each word or tag, and the likeliest end of what is being typed.
Pure values; made anew whenever the captions are others, which costs some 20 ms for each thousand.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
"""A word: letters, with apostrophes inside."""

LEAST_TYPED = 3
"""Characters of a word or tag before anything is offered."""
LEAST_CAPTIONS = 2
"""A word of one caption alone is offered to nobody: it may be a slip."""
LONGEST = 60
"""Longer tags are sentences."""


@dataclass(frozen=True)
class Vocabulary:
    """What the captions hold.

    Attributes:
        captions: how many there are.
        words: by the word as written most often, in how many captions it is.
        tags: the same of what stands between commas; empty where the captions are prose.
    """

    captions: int = 0
    words: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    _sorted_words: Sequence[str] = field(default=(), repr=False)
    _sorted_tags: Sequence[str] = field(default=(), repr=False)

    def completion(self, before: str, after: str) -> str:
        """What to put behind ``before``, the caption up to the cursor; empty where nothing is known or wanted.

        Args:
            before: up to the cursor.
            after: from the cursor on; inside a word nothing is offered.
        """
        if after[:1].isalnum() or after[:1] in ("'", "’", "_"):
            return ""
        if self.tags:
            begun = re.split(r"[,\n]", before)[-1].lstrip()
            if rest := _rest(begun, self.tags, self._sorted_tags):
                return rest
        found = re.search(r"[^\W\d_]+$", before)
        if found is None or before[found.start() - 1 : found.start()] in ("'", "’", "[", "{"):
            return ""
        return _rest(found[0], self.words, self._sorted_words)

    def frequent(self, least: int) -> frozenset[str]:
        """Words, in small letters, of at least so many captions."""
        return frozenset(word.lower() for word, count in self.words.items() if count >= least)


def vocabulary_of(captions: Iterable[str]) -> Vocabulary:
    """Count the words and tags of ``captions``, each once a caption.

    Captions count as tag lists where most of them have more commas than full stops and short parts between them.
    """
    words: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    number = lists = 0
    for caption in captions:
        number += 1
        words.update(set(WORD.findall(caption)))
        parts = [part.strip() for part in re.split(r"[,\n]", caption)]
        # What a terminal may act on is in captions for no good reason, and is handed on to no other.
        tags.update({part for part in parts if 0 < len(part) <= LONGEST and part.isprintable()})
        lists += len(parts) >= 3 and caption.count(".") * 3 < len(parts) and sum(map(len, parts)) < 25 * len(parts)
    words = _one_spelling(words)
    tags = _one_spelling(tags) if lists * 2 > number else Counter()
    return Vocabulary(number, words, tags, _by_lower(words), _by_lower(tags))


def _one_spelling(counts: Counter[str]) -> Counter[str]:
    """Spellings that differ in capitals alone as one: the most frequent; at the start of a sentence all have one."""
    by_lower: dict[str, tuple[int, int, str]] = {}
    for text, count in counts.items():
        total, most, best = by_lower.get(text.lower(), (0, 0, text))
        # Among equals the small letters win, whatever the order.
        if (count, text) > (most, best):
            most, best = count, text
        by_lower[text.lower()] = (total + count, most, best)
    return Counter({best: total for total, _, best in by_lower.values()})


def _by_lower(counts: Counter[str]) -> list[str]:
    return sorted((text for text, count in counts.items() if count >= LEAST_CAPTIONS), key=str.lower)


def _rest(begun: str, counts: Counter[str], ordered: Sequence[str]) -> str:
    """The end of the most frequent text that begins with ``begun``; nothing where it is one already."""
    if len(begun) < LEAST_TYPED:
        return ""
    start = begun.lower()
    first = bisect_left(ordered, start, key=str.lower)
    last = bisect_left(ordered, start + "\U0010ffff", key=str.lower)
    found = [text for text in ordered[first:last] if text.lower().startswith(start)]
    if any(len(text) == len(begun) for text in found):
        return ""
    best = max(found, key=lambda text: (counts[text], -len(text)), default="")
    return best[len(begun) :]
