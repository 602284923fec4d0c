"""The dataset pane: every picture of the dataset in a table, found by words, sorted, starred.

Comes in: the catalog, polled, and the session, in which cursor, filter and order live. Goes out:
:class:`DatasetPane.RowChosen` when another picture is the current one, :class:`DatasetPane.EditWanted` when its
caption is to be edited.
"""

from __future__ import annotations

from typing import Any, Self

from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Input

from engine.text import safe_text
from tui.catalog import Catalog, Row
from tui.listing import Listing
from tui.safe import safe
from tui.session import SessionState
from tui.widgets import dataset_actions
from tui.widgets.dataset_actions import DatasetActions
from tui.widgets.dataset_columns import extra_of
from tui.widgets.dataset_filter import LONGEST_FILTER, FilterFault, FilterInput
from tui.widgets.dataset_table import DatasetHeader, DatasetNote, DatasetTable
from tui.widgets.dataset_words import ProblemCounts, hint_of, note_of, title_of

POLL_S = 0.2


class DatasetPane(DatasetActions):
    """The table with filter, headings and note.

    Args:
        catalog: the rows.
        session: keeps cursor, filter and order while screens come and go.
        id: the pane's.
    """

    EditWanted = dataset_actions.EditWanted

    class RowChosen(Message):
        """Another picture is the current one; None when there is none."""

        def __init__(self, row: Row | None) -> None:
            super().__init__()
            self.row = row

    def __init__(
        self,
        catalog: Catalog,
        session: SessionState,
        id: str | None = "dataset",  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(id=id, classes="pane")
        self.catalog, self.session = catalog, session
        self.listing = Listing(catalog, session)
        self._counts = ProblemCounts(catalog)
        self._told: Row | None = None
        self._seen: object = None
        self._able = False, False
        self._titles = "", ""

    @property
    def chosen(self) -> Row | None:
        """The current picture."""
        return self.listing.chosen

    @property
    def typing(self) -> bool:
        """Whether the filter has the focus."""
        return isinstance(self.screen.focused, FilterInput)

    def compose(self) -> ComposeResult:
        """Filter, headings, table, note."""
        yield FilterInput(self.session.filter)
        yield FilterFault()
        yield DatasetHeader()
        yield DatasetTable()
        yield DatasetNote()

    def on_mount(self) -> None:
        """Show what is there; look for more while the pane lives."""
        self.query_one(FilterInput).display = bool(self.session.filter)
        self.poll()
        self.set_interval(POLL_S, self.poll)

    def focus(self, scroll_visible: bool = True, **options: Any) -> Self:
        """Focus the table."""
        self.table.focus(scroll_visible, **options)
        return self

    def step(self, by: int) -> None:
        """Go ``by`` pictures on, or back when negative."""
        self.go(self.listing.cursor + by)

    def poll(self) -> None:
        """Take what changed in the catalog and in the run's edits."""
        self.catalog.look()
        seen = (self.catalog.version, self.catalog.state, dict(self.session.edited), self.table.size)
        if seen != self._seen:
            self._seen = seen
            self.listing.take()
            self.show()
        if (failure := self.catalog.failure) is not None:
            self.catalog.failure = None
            show_error = getattr(self.app, "show_error", None)
            if show_error is not None:
                show_error(failure)

    def show(self) -> None:
        """Draw what the listing holds now; tell of another current picture."""
        listing, table = self.listing, self.table
        words = self.query_one(FilterInput)
        self.query_one(FilterFault).tell(listing.fault if words.display else None, words.scroll_offset.x)
        table.limits, table.edited = listing.limits, self.session.edited
        table.hint = hint_of(self.catalog)
        table.tokens, table.longest = not self.catalog.tokenizer_problem, listing.longest
        table.extra = extra_of(self.session.sort)
        table.show(listing.rows, listing.cursor)
        order = self.session.sort, self.session.descending
        self.query_one(DatasetHeader).show_order(*order, table.tokens, table.longest)
        self._show_titles()
        self.query_one(DatasetNote).tell(*note_of(listing))
        able = bool(self.catalog.rows), bool(self.session.filter)
        if able != self._able:
            self._able = able
            self.refresh_bindings()
        if listing.chosen is not self._told:
            self._told = listing.chosen
            self.post_message(self.RowChosen(listing.chosen))

    def open_filter(self) -> None:
        """Let the user type words."""
        words = self.query_one(FilterInput)
        words.display = True
        # At once, not after the next messages: what is typed meanwhile belongs to the filter.
        self.screen.set_focus(words)

    def find(self, words: str) -> None:
        """Show what a filter finds, as if the user had typed it."""
        box = self.query_one(FilterInput)
        box.display = True
        box.value = safe_text(words, LONGEST_FILTER)
        self.screen.set_focus(self.table)

    def leave_filter(self, cleared: bool) -> None:
        """Go back to the table, all of it when ``cleared``."""
        words = self.query_one(FilterInput)
        self.screen.set_focus(self.table)
        if cleared:
            words.value = ""
            words.display = False

    def say(self, text: str) -> None:
        """One line in the status line, for a moment."""
        say = getattr(self.app, "say", None)
        if say is not None:
            say(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Find as the user types."""
        event.stop()
        if event.value != self.session.filter:
            self.session.filter = event.value
            self.listing.find()
            self.show()

    def on_filter_input_left(self, event: FilterInput.Left) -> None:
        """Back to the table."""
        event.stop()
        self.leave_filter(event.cleared)

    def on_dataset_header_pressed(self, event: DatasetHeader.Pressed) -> None:
        """Sort by the column; again: turn it round."""
        event.stop()
        self.listing.order(event.key, event.key == self.session.sort and not self.session.descending)
        self.show()

    def on_dataset_table_pointed(self, event: DatasetTable.Pointed) -> None:
        """The mouse chooses; twice edits."""
        event.stop()
        self.go(event.index)
        if event.twice:
            self.action_edit()

    def on_dataset_table_marked(self, event: DatasetTable.Marked) -> None:
        """The mouse marks."""
        event.stop()
        self.mark_by_mouse(event.index, event.through)

    def _show_titles(self) -> None:
        hidden = self.session.sort not in [column.key for column in self.table.columns]
        told = self._counts.told()
        titles = title_of(self.listing, hidden), self.catalog.stage or told
        if titles != self._titles:  # setting them repaints the pane
            self._titles = titles
            self.border_title, self.border_subtitle = map(safe, titles)
        # Where nothing is listed the table itself says what is wrong.
        noted = bool(self.catalog.rows) and bool(told or self.catalog.problems or self.catalog.error)
        self.set_class(noted, "-noted")
