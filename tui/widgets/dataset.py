"""The dataset pane: every picture of the dataset in a table, found by words, sorted, starred.

Comes in: the catalog, polled, and the session, in which cursor, filter and order live. Goes out:
:class:`DatasetPane.RowChosen` when another picture is the current one, :class:`DatasetPane.EditWanted` when its
caption is to be edited.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.widgets import Input

from engine.text import safe_text
from tui.catalog import Catalog, Row
from tui.keys.dataset import FILTER_KEYS
from tui.keys.key import bindings
from tui.listing import Listing
from tui.safe import safe
from tui.session import SessionState
from tui.widgets import dataset_actions
from tui.widgets.dataset_actions import DatasetActions
from tui.widgets.dataset_table import DatasetHeader, DatasetNote, DatasetTable

POLL_S = 0.2
LONGEST_FILTER = 200


class FilterInput(Input):
    """The words to look for. enter goes to what was found, esc clears and then leaves."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(FILTER_KEYS)

    class Left(Message):
        """The user is done with the filter; ``cleared`` when they gave it up."""

        def __init__(self, cleared: bool) -> None:
            super().__init__()
            self.cleared = cleared

    def __init__(self, words: str) -> None:
        super().__init__(
            safe_text(words, LONGEST_FILTER),
            placeholder="words in name or caption; -word leaves out",
            compact=True,
            max_length=LONGEST_FILTER,
            select_on_focus=False,
        )

    def insert(self, text: str, index: int) -> None:
        """Type or paste ``text``, made safe to show."""
        super().insert(safe_text(text, LONGEST_FILTER), index)

    def replace(self, text: str, start: int, end: int) -> None:
        """Paste ``text`` over what is selected, made safe to show."""
        super().replace(safe_text(text, LONGEST_FILTER), start, end)

    def allow_focus(self) -> bool:
        """Only in sight: keys must not vanish into words that nobody sees."""
        return bool(self.display) and super().allow_focus()

    def action_done(self) -> None:
        """Go to the pictures."""
        self.post_message(self.Left(cleared=not self.value))

    def action_clear(self) -> None:
        """Clear the words; leave when there are none."""
        if self.value:
            self.value = ""
        else:
            self.post_message(self.Left(cleared=True))


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

    def reveal(self, path: Path) -> None:
        """Go to a picture, in sight of all if the filter hides it."""
        self.session.cursor = str(path)
        if all(row.path != path for row in self.listing.rows):
            self.leave_filter(cleared=True)
        place = next((at for at, row in enumerate(self.listing.rows) if row.path == path), None)
        if place is not None:
            self.go(place)

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
        table.limits, table.edited, table.hint = listing.limits, self.session.edited, self._hint()
        table.tokens, table.longest = not self.catalog.tokenizer_problem, listing.longest
        table.show(listing.rows, listing.cursor)
        order = self.session.sort, self.session.descending
        self.query_one(DatasetHeader).show_order(*order, table.tokens, table.longest)
        self._show_titles()
        self._show_note()
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

    def _show_titles(self) -> None:
        total, listed = len(self.catalog.rows), len(self.listing.rows)
        count = f"{listed:,}/{total:,}" if self.session.filter else f"{total:,}"
        hidden = self.session.sort not in [column.key for column in self.table.columns]
        order = f" by {self.session.sort}" if hidden else ""
        title = f"1 Dataset {count}{order}" if total else "1 Dataset"
        counts = {"error": 0, "warning": 0}
        for row in self.catalog.rows:
            if row.severity:
                counts[row.severity] += 1
        told = [f"{number} {word}{'' if number == 1 else 's'}" for word, number in counts.items() if number]
        titles = title, self.catalog.stage or ", ".join(told)
        if titles != self._titles:  # setting them repaints the pane
            self._titles = titles
            self.border_title, self.border_subtitle = map(safe, titles)
        # Where nothing is listed the table itself says what is wrong.
        noted = bool(self.catalog.rows) and bool(told or self.catalog.problems or self.catalog.error)
        self.set_class(noted, "-noted")

    def _show_note(self) -> None:
        note, row = self.query_one(DatasetNote), self.listing.chosen
        if row is not None and row.severity:
            # The remedy counts most; of a caption the whole error stands under it.
            shorter = f"{row.problem.partition(':')[0]}. {row.hint}"
            note.tell(shorter if row.code == "caption" else f"{row.problem}. {row.hint}", row.severity, shorter)
        elif self.catalog.error is not None and row is not None:
            error = self.catalog.error
            note.tell(safe_text(f"{error.title}: {error.detail} {error.hint}"), "error")
        elif row is not None and row.t5 is not None and row.t5 > self.catalog.t5_limit:
            over = f"{row.t5} T5 tokens; what follows token {self.catalog.t5_limit} is not read"
            note.tell(f"The caption has {over}", "warning")
        elif self.catalog.problems:
            found = self.catalog.problems[0]
            note.tell(f"{os.path.basename(found.path)}: {found.message}. {found.hint}", found.severity)
        else:
            note.tell("", "")

    def _hint(self) -> list[str]:
        """What to do where there is nothing to list."""
        catalog = self.catalog
        if catalog.state == "empty":
            return ["No dataset is open.", "Set up a run, or start kiln in a folder with pictures."]
        if catalog.error is not None:
            return [
                safe_text(part) for part in (catalog.error.title, catalog.error.detail, catalog.error.hint) if part
            ]
        if catalog.rows:
            return ["No picture holds these words.", "esc shows all again."]
        dataset = catalog.dataset
        where = safe_text(", ".join(str(folder.path) for folder in dataset.folders)) if dataset else ""
        if catalog.state == "scanning":
            return [f"Looking for pictures in {where}"]
        return [
            f"No pictures in {where}",
            "Copy pictures there (JPEG, PNG, WebP, BMP, TIFF, AVIF); captions are written here or lie beside them. "
            "They show up by themselves.",
        ]
