"""What is known of words while a caption is typed: the dataset's own vocabulary, and the lists that spelling needs.

Read and counted in a thread, as one value that takes the place of the former.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.dataset.spelling import SYSTEM_LIST, Speller, read_words
from engine.dataset.vocabulary import WORD, Vocabulary, vocabulary_of
from engine.errors import DatasetError
from engine.text import safe_text
from tui.settings import Editing

LEAST_CAPTIONS = 5
"""A word of so many captions is meant."""


@dataclass(frozen=True)
class Lists:
    """Word lists as read.

    Attributes:
        words: of the system or the settings.
        own: the user's additions.
        problem: why there are no words, safe to show; empty where there are.
    """

    words: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True)
class Words:
    """All that is known: completion asks the vocabulary, spelling the speller."""

    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    speller: Speller = field(default_factory=Speller)
    lists: Lists | None = None

    def with_own(self, word: str) -> Words:
        """The same after the user added a word."""
        lists = self.lists or Lists()
        own = lists.own | {word.lower()}
        return replace(self, lists=replace(lists, own=own), speller=replace(self.speller, own=own))


def read_lists(editing: Editing, own: Path) -> Lists:
    """The lists that the settings want; slow, not for the screen's thread."""
    mine, problem = _read(own) if own.exists() else (frozenset(), "")
    if editing.words == "off":
        return Lists(own=mine, problem="off in the settings (editing.words)")
    path = SYSTEM_LIST if editing.words == "auto" else Path(editing.words).expanduser()
    if editing.words == "auto" and not path.exists():
        return Lists(own=mine, problem=f'there is no {path}; "words" under [editing] in the settings names another')
    words, why = _read(path)
    return Lists(words, mine, why or problem)


def words_of(captions: Sequence[str], trigger: str, template: str, lists: Lists) -> Words:
    """Count the captions, and put all lists together; slow, not for the screen's thread."""
    vocabulary = vocabulary_of(captions)
    given = WORD.findall(f"{trigger} {template}".lower()) + re.findall(r"\w+", trigger.lower())
    allowed = vocabulary.frequent(LEAST_CAPTIONS) | set(given)
    return Words(vocabulary, Speller(lists.words, lists.own, allowed), lists)


def _read(path: Path) -> tuple[frozenset[str], str]:
    try:
        words = read_words(path)
    except DatasetError as err:
        return frozenset(), safe_text(f"{err.title}: {err.detail}", 200)
    return words, "" if words else f"{safe_text(path, 100)} holds no words"
