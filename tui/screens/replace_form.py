"""The form of an operation on many captions: its fields, and the places for what it finds.

The part of :class:`tui.screens.replace.ReplaceScreen` that changes nothing; preview and changing are the screen's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Input, Static

from engine.dataset.applying import Outcome
from engine.dataset.batch_edits import Operation
from tui.batch import texts_of
from tui.keys.batch import REPLACE_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.screens.pick import Offer, PickDialog
from tui.widgets.change_list import ChangeList, ChangeView
from tui.widgets.fields import Choice, Entry
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.wizard import Act

if TYPE_CHECKING:
    from tui.app import KilnApp
    from tui.catalog import Row

LONGEST = 2_000
"""Characters to find, or to put in."""

OPERATIONS = (
    ("replace", "Find and replace"), ("remove", "Remove words or a tag"), ("rename", "Rename a tag"),
    ("prefix", "Put in front"), ("suffix", "Put behind"), ("trigger", "Add the trigger word"),
    ("dedupe", "Remove double tags"), ("sort", "Sort tags"), ("sentence", "Tags to sentences"),
    ("tags", "Sentences to tags"),
)  # fmt: skip

WHERE = (("anywhere", "anywhere"), ("words", "whole words"), ("tags", "whole tags"))
HOW = (("plain", "plain text"), ("regex", "expression"))
CASE = (("", "any case"), ("case", "exact case"))

FIND = frozenset({"replace", "remove", "rename"})
TEXT = frozenset({"replace", "rename", "prefix", "suffix", "trigger"})
LABELS = {"prefix": "Text", "suffix": "Text", "trigger": "Word", "rename": "To", "replace": "With"}


class ReplaceForm(Screen[Outcome | None]):
    """The form, the list of changes, the button.

    Args:
        scopes: rows by the word for them: marked, found, all.
        scope: which of them to begin with.
        operation: what to begin with; its trigger word, separator and leading tags stay.
    """

    app: KilnApp

    CSS_PATH = "batch.tcss"
    BINDINGS: ClassVar = bindings(REPLACE_KEYS)
    AUTO_FOCUS = "#field-find"

    def __init__(self, scopes: Mapping[str, Sequence[Row]], scope: str, operation: Operation) -> None:
        super().__init__()
        self._scopes, self._scope = scopes, scope
        self._counts = {word: len(texts_of(rows)) for word, rows in scopes.items()}
        self._begin = operation

    def compose(self) -> ComposeResult:
        """The form in four lines, what was found, the changes, the one at the cursor, the button."""
        begin = self._begin
        scopes = tuple((word, f"{word} {count:,}") for word, count in self._counts.items())
        with Horizontal(classes="line"):
            yield Static(safe("Do"), classes="label")
            yield Choice(OPERATIONS, begin.kind, "kind")
            yield Static(safe("in"), classes="label -short")
            yield Choice(scopes, self._scope, "scope")
        with Horizontal(classes="line", id="line-find"):
            yield Static(safe("Find"), classes="label")
            yield _field(begin.find, "find")
        with Horizontal(classes="line", id="line-text"):
            yield Static(safe("With"), classes="label", id="label-text")
            yield _field(begin.text, "text")
        with Horizontal(classes="line", id="line-how"):
            yield Static(safe("How"), classes="label")
            yield Choice(WHERE, begin.where, "where")
            yield Choice(HOW, "regex" if begin.regex else "plain", "how")
            yield Choice(CASE, "case" if begin.case else "", "case")
        yield Static(id="told")
        yield ChangeList()
        yield ChangeView()
        yield Act("apply", "Change 0 captions")
        yield Notice()
        yield KeyLine()

    @property
    def operation(self) -> Operation:
        """What the form says."""
        begin = self._begin
        kind = self._choice("kind")
        plain = kind == "replace"
        return Operation(
            kind,
            self.query_one("#field-find", Input).value if kind in FIND else "",
            self.query_one("#field-text", Input).value if kind in TEXT else "",
            plain and self._choice("how") == "regex",
            self._choice("where") if plain else "anywhere",
            kind in FIND and bool(self._choice("case")),
            begin.separator,
            begin.trigger,
            begin.keep,
        )

    def _choice(self, name: str) -> str:
        return self.query_one(f"#field-{name}", Choice).value

    @property
    def changes(self) -> ChangeList:
        """The list of changes."""
        return self.query_one(ChangeList)

    def lay_out(self) -> None:
        """Show the fields that the operation has."""
        kind = self._choice("kind")
        self.query_one("#line-find").display = kind in FIND
        self.query_one("#line-text").display = kind in TEXT
        self.query_one("#label-text", Static).update(safe(LABELS.get(kind, "")))
        self.query_one("#line-how").display = kind in FIND
        for name in ("where", "how"):
            self.query_one(f"#field-{name}").display = kind == "replace"
        text = self.query_one("#field-text", Input)
        if kind == "trigger" and not text.value:
            text.value = self._begin.trigger
        self.tell_button()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.changes.focus()

    @on(Choice.PickWanted)
    def _pick_wanted(self, event: Choice.PickWanted) -> None:
        self._pick(event.choice)

    def action_list(self) -> None:
        """Choose the operation from a list."""
        self._pick(self.query_one("#field-kind", Choice))

    @work(exclusive=True, group="pick")
    async def _pick(self, choice: Choice) -> None:
        offers = [Offer(value, label) for value, label in choice.options]
        chosen = await self.app.push_screen_wait(PickDialog("Choose", offers, choice.value))
        if chosen is not None:
            choice.take(chosen)

    def tell(self, words: str, bad: bool = False) -> None:
        """Say this over the list; with no words how many changes there are."""
        found, ticked = len(self.changes.items), self.changes.ticked
        if not words:
            left = f", {found - ticked:,} left out (space)" if ticked < found else ""
            words = f"{found:,} change{'' if found == 1 else 's'}{left}"
        self.query_one("#told", Static).update(safe(words, 400, style="$text-error" if bad else ""))

    def tell_button(self) -> None:
        """Say on the button how many captions will be changed."""
        scope = self._choice("scope")
        self.query_one(Act).tell(f"Change {self.changes.ticked:,} of {self._counts[scope]:,} captions ({scope})")


def _field(value: str, name: str) -> Entry:
    """A line of text that nobody can paste a book into."""
    entry = Entry(value[:LONGEST], name)
    entry.max_length = LONGEST
    return entry
