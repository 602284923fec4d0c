"""Many captions at once: an operation, its fields, a preview of every change, and one key that makes them.

The preview follows what is typed; it is worked out in a thread, as are the changes. Returns the outcome when captions
were changed, else None.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from textual import on, work
from textual.timer import Timer
from textual.widgets import Input

from engine.dataset.batch_edits import Operation
from engine.errors import EngineError
from engine.text import safe_text
from tui.aside import aside
from tui.batch import Batches, Item, preview
from tui.screens.replace_form import FIND, TEXT, ReplaceForm
from tui.widgets.change_list import ChangeList, ChangeView
from tui.widgets.fields import Choice
from tui.widgets.wizard import Act

if TYPE_CHECKING:
    from tui.catalog import Row

TYPING_S = 0.12
"""The preview waits so long for the next letter."""


class ReplaceScreen(ReplaceForm):
    """The form at work.

    Args:
        batches: makes the changes.
        scopes, scope, operation: see the form.
    """

    def __init__(
        self, batches: Batches, scopes: Mapping[str, Sequence[Row]], scope: str, operation: Operation
    ) -> None:
        super().__init__(scopes, scope, operation)
        self._batches = batches
        self._stop = threading.Event()
        self._applying = False
        self._typing: Timer | None = None
        self._left: set[Row] = set()
        """Pictures whose tick was taken away: so they stay while the form changes."""
        self.looking = True
        """The preview is being worked out."""

    def on_mount(self) -> None:
        """Show the fields that the operation has, and what it would do."""
        self.lay_out()
        self._look()

    def on_unmount(self) -> None:
        """Nothing goes on for a screen that is gone."""
        self._stop.set()

    @on(Choice.Changed)
    def _chosen(self, event: Choice.Changed) -> None:
        self.looking = True
        self.lay_out()
        self._look()

    @on(Input.Changed)
    def _typed(self) -> None:
        self.looking = True
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING_S, self._look)

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
        for item in self.changes.items:
            (self._left.discard if item.ticked else self._left.add)(item.row)
        for item in found:
            item.ticked = item.row not in self._left
        typed = operation.find if operation.kind in FIND else operation.text
        if operation.kind in FIND | TEXT and not typed:
            words, problem = "Type, and every change shows here before it is made.", problem or " "
        else:
            words = f"! {problem}" if problem else ""
        self.looking = False
        self.changes.take(found, "" if problem else "No caption would change.")
        self.tell(words, bad=words.startswith("!"))
        self.tell_button()

    @on(ChangeList.Moved)
    def _moved(self) -> None:
        self.query_one(ChangeView).tell(self.changes.item)
        if self.changes.items and not self._applying:
            self.tell("")
        self.tell_button()

    @on(ChangeList.Pressed)
    def _pressed(self, event: ChangeList.Pressed) -> None:
        if event.x < 5 or event.twice:
            self.changes.action_tick()

    @on(Act.Pressed)
    def action_apply(self) -> None:
        """Make the changes that are ticked."""
        if self.looking:
            self.app.say("Still looking: a moment")
        elif not self.changes.ticked:
            self.app.say("Nothing is ticked")
        elif not self._applying:
            self._apply(str(self.operation), [item for item in self.changes.items if item.ticked])

    @work(exclusive=True, group="apply")
    async def _apply(self, what: str, items: list[Item]) -> None:
        self._applying = True
        stop = self._stop = threading.Event()

        def told(count: int) -> None:
            self.app.call_later(self._progress, count, len(items))

        self._progress(0, len(items))
        try:
            outcome = await aside(self, None, self._batches.apply, safe_text(what, 200), items, told, stop.is_set)
        except EngineError as err:
            self._applying = False
            self.app.show_error(err)
            return
        self._applying = False
        self.dismiss(outcome)

    def _progress(self, count: int, total: int) -> None:
        if self._applying and self.is_attached:  # the last word may come when all is done
            self.tell(f"{count:,} of {total:,} written; esc stops")

    def action_back(self) -> None:
        """Stop what is being written; else back to the dataset."""
        if self._applying:
            self._stop.set()
        else:
            self.dismiss(None)
