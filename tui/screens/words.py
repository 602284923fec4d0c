"""Words and tags of the dataset: how often each occurs, what that means for training, and what to do about it.

Returns a :class:`Wish`: to show the pictures that hold a word, or to change it in every caption; None when it is just
left. Counting goes on in a thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Input, Static

from engine.dataset.batch_edits import Operation
from engine.dataset.frequencies import Frequencies, Frequency
from engine.dataset.query_parse import Text, written
from tui.aside import aside
from tui.keys.batch import WORDS_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.widgets.fields import Choice, Entry
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.word_table import WordTable

if TYPE_CHECKING:
    from tui.app import KilnApp

WHAT = (("words", "words in a row"), ("tags", "tags"))
COUNTS = (("", "all"), ("every", "in every caption"), ("one", "in only one"))

TAGS_FROM = 4.0
"""Separators in a caption, on average, from which the dataset is taken for one of tags."""


@dataclass(frozen=True)
class Wish:
    """What the user wants: a filter to set, or an operation to begin with."""

    filter: str = ""
    operation: Operation | None = None


class WordsScreen(Screen["Wish | None"]):
    """The list, what the word at the cursor means, the keys.

    Args:
        texts: the captions to count, each under a key of its own.
        scope: the word for them, for the title.
        separator: what stands between tags.
        trigger: the trigger word.
    """

    app: KilnApp

    CSS_PATH = "batch.tcss"
    BINDINGS: ClassVar = bindings(WORDS_KEYS)
    AUTO_FOCUS = "#words"

    def __init__(self, texts: Mapping[Hashable, str], scope: str, separator: str, trigger: str) -> None:
        super().__init__()
        self._texts, self._scope = texts, scope
        self._separator, self._trigger = separator, trigger
        self._counted: dict[bool, Frequencies] = {}
        self.looking = True
        """They are being counted."""

    def compose(self) -> ComposeResult:
        """What is counted, the list, what it means."""
        with Horizontal(classes="line"):
            yield Choice(WHAT, "tags" if _are_tags(self._texts.values(), self._separator) else "words", "what")
            yield Choice(COUNTS, "", "counts")
            yield Entry("", "holding", "letters to find")
        yield Static(id="head")
        yield WordTable()
        yield Static(id="meaning")
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """Count."""
        self._count()

    @property
    def tags(self) -> bool:
        """Whether tags are counted."""
        return self.query_one("#field-what", Choice).value == "tags"

    @work(exclusive=True, group="count")
    async def _count(self) -> None:
        self.looking = True
        tags, counts = self.tags, self.query_one("#field-counts", Choice).value
        holding = self.query_one("#field-holding", Input).value
        if tags not in self._counted:
            self.query_one("#head", Static).update(safe("Counting..."))
        captions, found = await aside(self, None, self._work, tags, counts, holding)
        word = "tags" if tags else "words"
        self.query_one("#head", Static).update(
            safe(f"{len(found):,} {word} in {captions:,} captions ({self._scope})")
        )
        self.looking = False
        self.query_one(WordTable).take(found, captions, f"No {word} like that.")

    def _work(self, tags: bool, counts: str, holding: str) -> tuple[int, list[Frequency]]:
        counted = self._counted.get(tags)
        if counted is None:
            counted = Frequencies(tags, self._separator)
            counted.take(self._texts)
            self._counted[tags] = counted
        captions = counted.captions
        # Rows of words that are in one caption alone are nearly as many as there are words: asked for only.
        fewest, most = {"every": (captions, None), "one": (1, 1)}.get(
            counts, (1 if tags or captions < 3 else 2, None)
        )
        return captions, counted.most(holding, fewest, most)

    @on(Choice.Changed)
    @on(Input.Changed)
    def _changed(self) -> None:
        self._count()

    @on(Choice.PickWanted)
    def _pick_wanted(self, event: Choice.PickWanted) -> None:
        event.choice.action_step(1)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.query_one(WordTable).focus()

    @on(WordTable.Moved)
    def _moved(self) -> None:
        table = self.query_one(WordTable)
        chosen, counted = table.chosen, self._counted.get(self.tags)
        words = counted.meaning(chosen, self._trigger) if chosen is not None and counted is not None else ""
        self.query_one("#meaning", Static).update(safe(words))

    @on(WordTable.Pressed)
    def _pressed(self, event: WordTable.Pressed) -> None:
        if event.twice:
            self.action_show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While letters are typed the single keys are letters."""
        typing = isinstance(self.focused, Input)
        return not (typing and action in ("rename", "remove", "tags", "counts", "find", "show"))

    def action_find(self) -> None:
        """Type letters."""
        self.query_one("#field-holding").focus()

    def action_tags(self) -> None:
        """Count the other."""
        self.query_one("#field-what", Choice).action_step(1)

    def action_counts(self) -> None:
        """All, those in every caption, those in only one."""
        self.query_one("#field-counts", Choice).action_step(1)

    def action_show(self) -> None:
        """Show the pictures that hold it."""
        if (chosen := self.query_one(WordTable).chosen) is not None:
            self.dismiss(Wish(filter_for(chosen.words, self.tags)))

    def action_rename(self) -> None:
        """Change it everywhere: the form has it filled in."""
        self._change("rename" if self.tags else "replace")

    def action_remove(self) -> None:
        """Take it out everywhere: the form has it filled in."""
        self._change("remove")

    def _change(self, kind: str) -> None:
        if (chosen := self.query_one(WordTable).chosen) is not None:
            text = chosen.words if kind == "rename" else ""
            where = "words" if kind == "replace" else "anywhere"
            self.dismiss(Wish(operation=Operation(kind, chosen.words, text, where=where)))

    def action_back(self) -> None:
        """From the letters to the list, then to the dataset."""
        letters = self.query_one("#field-holding", Input)
        if letters.has_focus:
            letters.value = ""
            self.query_one(WordTable).focus()
        else:
            self.dismiss(None)


def _are_tags(texts: Iterable[str], separator: str) -> bool:
    """Whether the captions are rather lists of tags."""
    mark, some = separator.strip(), list(itertools.islice(texts, 200))
    return bool(mark and some) and sum(text.count(mark) for text in some) / len(some) >= TAGS_FROM


def filter_for(words: str, tags: bool) -> str:
    """The filter that finds the captions with these words, or this tag."""
    return written(Text("tag" if tags else "caption", (words,)))
