"""Many captions at once: an operation, its fields, a preview of every change, and one key that makes them.

The preview follows what is typed; it is worked out in a thread, as are the changes. Returns the outcome when captions
were changed, else None.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Input, Static

from engine.dataset.applying import Outcome
from engine.dataset.batch_edits import Operation
from engine.errors import EngineError
from engine.text import safe_text
from tui.aside import aside
from tui.batch import Batches, Item, preview, texts_of
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

TYPING_S = 0.12
"""The preview waits so long for the next letter."""

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


class ReplaceScreen(Screen[Outcome | None]):
    """The form, the list of changes, the button.

    Args:
        batches: makes the changes.
        scopes: rows by the word for them: marked, found, all.
        scope: which of them to begin with.
        operation: what to begin with; its trigger word, separator and leading tags stay.
    """

    app: KilnApp

    CSS_PATH = "batch.tcss"
    BINDINGS: ClassVar = bindings(REPLACE_KEYS)
    AUTO_FOCUS = "#field-find"

    def __init__(
        self, batches: Batches, scopes: Mapping[str, Sequence[Row]], scope: str, operation: Operation
    ) -> None:
        super().__init__()
        self._batches, self._scopes, self._scope = batches, scopes, scope
        self._begin = operation
        self._stop = threading.Event()
        self._applying = False
        self._left: set[str] = set()
        """Pictures whose tick was taken away: so they stay while the form changes."""
        self.looking = True
        """The preview is being worked out."""

    def compose(self) -> ComposeResult:
        """The form in four lines, what was found, the changes, the one at the cursor, the button."""
        begin = self._begin
        counts = {word: len(texts_of(rows)) for word, rows in self._scopes.items()}
        scopes = tuple((word, f"{word} {count:,}") for word, count in counts.items())
        with Horizontal(classes="line"):
            yield Static(safe("Do"), classes="label")
            yield Choice(OPERATIONS, begin.kind, "kind")
            yield Static(safe("in"), classes="label -short")
            yield Choice(scopes, self._scope, "scope")
        with Horizontal(classes="line", id="line-find"):
            yield Static(safe("Find"), classes="label")
            yield Entry(begin.find, "find")
        with Horizontal(classes="line", id="line-text"):
            yield Static(safe("With"), classes="label", id="label-text")
            yield Entry(begin.text, "text")
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

    def on_mount(self) -> None:
        """Show the fields that the operation has, and what it would do."""
        self._lay_out()
        self._look()

    def on_unmount(self) -> None:
        """Nothing goes on for a screen that is gone."""
        self._stop.set()

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
    def _list(self) -> ChangeList:
        return self.query_one(ChangeList)

    def _lay_out(self) -> None:
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
        self._tell_button()

    @on(Choice.Changed)
    def _chosen(self, event: Choice.Changed) -> None:
        self._lay_out()
        self._look()

    @on(Input.Changed)
    def _typed(self) -> None:
        self.looking = True
        self.set_timer(TYPING_S, self._look)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._list.focus()

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

    @work(exclusive=True, group="preview")
    async def _look(self) -> None:
        """Work the preview out in a thread; what was begun for an earlier form is stopped."""
        if self._applying:
            return
        self._stop.set()
        self._stop = stop = threading.Event()
        self.looking = True
        rows = self._scopes[self._choice("scope")]
        operation = self.operation
        found: list[Item] = []
        problem = ""
        try:
            found = await aside(self, None, preview, operation, rows, stop.is_set)
        except EngineError as err:
            problem = f"{err.title}: {err.detail}. {err.hint}"
        if stop.is_set():
            return
        for item in found:
            item.ticked = str(item.row.path) not in self._left
        typed = operation.find if operation.kind in FIND else operation.text
        waiting = problem if typed else "Type, and every change shows here before it is made."
        self.looking = False
        self._list.take(found, "" if problem else "No caption would change.")
        self._tell(f"! {waiting}" if problem and typed else waiting, bad=bool(problem and typed))
        self._tell_button()

    def _tell(self, words: str, bad: bool = False) -> None:
        found, ticked = len(self._list.items), self._list.ticked
        if not words:
            left = f", {found - ticked:,} left out (space)" if ticked < found else ""
            words = f"{found:,} change{'' if found == 1 else 's'}{left}"
        self.query_one("#told", Static).update(safe(words, 400, style="$text-error" if bad else ""))

    def _tell_button(self) -> None:
        scope = self._choice("scope")
        count = len(texts_of(self._scopes[scope]))
        ticked = self._list.ticked
        self.query_one(Act).tell(f"Change {ticked:,} of {count:,} captions ({scope})")

    @on(ChangeList.Moved)
    def _moved(self) -> None:
        self.query_one(ChangeView).tell(self._list.item)
        if self._list.items and not self._applying:
            for item in self._list.items:
                (self._left.discard if item.ticked else self._left.add)(str(item.row.path))
            self._tell("")
        self._tell_button()

    @on(ChangeList.Pressed)
    def _pressed(self, event: ChangeList.Pressed) -> None:
        if event.x < 5 or event.twice:
            self._list.action_tick()

    @on(Act.Pressed)
    def action_apply(self) -> None:
        """Make the changes that are ticked."""
        if self.looking:
            self.app.say("Still looking: a moment")
        elif not self._list.ticked:
            self.app.say("Nothing is ticked")
        elif not self._applying:
            self._apply(str(self.operation), [item for item in self._list.items if item.ticked])

    @work(exclusive=True, group="apply")
    async def _apply(self, what: str, items: list[Item]) -> None:
        self._applying = True
        stop = self._stop = threading.Event()

        def told(count: int) -> None:
            self.app.call_later(self._tell, f"{count:,} of {len(items):,} written; esc stops")

        self._tell(f"0 of {len(items):,} written; esc stops")
        try:
            outcome = await aside(self, None, self._batches.apply, safe_text(what, 200), items, told, stop.is_set)
        except EngineError as err:
            self._applying = False
            self.app.show_error(err)
            return
        self.dismiss(outcome)

    def action_back(self) -> None:
        """Stop what is being written; else back to the dataset."""
        if self._applying:
            self._stop.set()
        else:
            self.dismiss(None)
