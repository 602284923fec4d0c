"""Which pictures the dataset pane lists, in which order, and which is the current one: without any drawing.

Filter, order and cursor live in the session. What is listed stays listed until filter or order are asked for again or
pictures come and go: a caption that no longer holds the word that found it must not take its row away from under the
editor, nor a new rating move it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from engine.dataset.query import EVERYTHING, Query
from engine.dataset.query_parse import QueryError
from tui.catalog import SORTS, Catalog, Row
from tui.catalog_rows import matching
from tui.session import SessionState
from tui.widgets.dataset_columns import Limits, is_problem


class Listing:
    """The rows found, and a cursor among them.

    Attributes:
        rows: what is listed.
        cursor: place of the current picture among them.
        chosen: the current picture; None while nothing is listed.
        fault: why the filter as typed cannot be read; what is listed is found by the last one that could.
        longest: cells of the longest name of the whole dataset, so that columns stay where they are while filtering.
        marked: how many pictures of the whole dataset are marked.
    """

    def __init__(self, catalog: Catalog, session: SessionState) -> None:
        self.catalog, self.session = catalog, session
        if session.sort not in SORTS:
            session.sort = "name"
        self.rows: Sequence[Row] = ()
        self.cursor = 0
        self.chosen: Row | None = None
        self.fault: QueryError | None = None
        self.longest = 0
        self.marked = 0
        self._anchor: Row | None = None
        """The picture marked or unmarked last, where a range begins."""
        self._all: Sequence[Row] = ()
        self._by_path: dict[str, Row] = {}
        self._query: Query | None = None
        self._filling = True

    @property
    def limits(self) -> Limits:
        """Tokens that are read."""
        return Limits(self.catalog.clip_limit, self.catalog.t5_limit)

    def take(self) -> None:
        """Take what the catalog has: new and removed pictures, and while it reads the values that it sorts by."""
        filling, self._filling = self._filling, self.catalog.state == "scanning"
        if filling or self._filling or self.catalog.rows is not self._all:
            self.find(keep=True)

    def find(self, keep: bool = False, near: bool = False) -> None:
        """List anew.

        Args:
            keep: leave the current picture among the rows even if it is not found any more.
            near: where it is gone, leave the cursor where it was.
        """
        session, chosen, before = self.session, self.chosen, self._all
        self._all = self.catalog.rows
        self._read_filter()
        found = matching(self._all, self._query or EVERYTHING, session.sort, session.descending)
        if self._all is not before:
            self._by_path = {str(row.path): row for row in self._all}
            self.longest = max((cell_len(row.name) for row in self._all), default=0)
            self.marked = sum(row.marked for row in self._all)
        if keep and chosen is not None and chosen not in found and chosen in self._all:
            found.insert(min(self.cursor, len(found)), chosen)
        self.rows = found
        self.cursor = self._place(keep or near)
        self.chosen = found[self.cursor] if found else None

    def go(self, index: int) -> None:
        """Make the picture at ``index`` the current one, or the nearest there is; the session remembers it."""
        self.cursor = max(0, min(index, len(self.rows) - 1))
        self.chosen = self.rows[self.cursor] if self.rows else None
        if self.chosen is not None:
            self.session.cursor = str(self.chosen.path)

    def order(self, sort: str, descending: bool) -> None:
        """List in another order."""
        self.session.sort, self.session.descending = sort, descending
        self.find()

    def scope(self) -> tuple[list[Row], str]:
        """What a command for several pictures is about, with the word for it: those marked, found or all."""
        if self.marked:
            return [row for row in self._all if row.marked], "marked"
        filtered = self._query is not None and not self._query.everything
        return (list(self.rows), "found") if filtered else (list(self._all), "all")

    def mark(self, index: int) -> None:
        """Mark the picture at ``index``, or take its mark away."""
        if 0 <= index < len(self.rows):
            self._anchor = row = self.rows[index]
            row.marked = not row.marked
            self.marked += 1 if row.marked else -1

    def mark_range(self, index: int) -> None:
        """As the picture marked or unmarked last, all from there to ``index``; without one this picture alone."""
        if self._anchor is None or self._anchor not in self.rows:
            self.mark(index)
            return
        first, last = sorted((self.rows.index(self._anchor), index))
        self._mark_all(self.rows[first : last + 1], self._anchor.marked)

    def mark_found(self) -> None:
        """Mark everything that is listed."""
        self._mark_all(self.rows, True)

    def unmark(self) -> None:
        """Take all marks away, also those of pictures that the filter hides."""
        self._mark_all(self._all, False)
        self._anchor = None

    def _mark_all(self, rows: Sequence[Row], marked: bool) -> None:
        for row in rows:
            self.marked += marked - row.marked
            row.marked = marked

    def knows(self, value: str) -> bool:
        """Whether ``sharp`` or ``loss`` of any picture is known."""
        return any(getattr(row, value) is not None for row in self._all)

    def next_problem(self, by: int) -> int | None:
        """Place of the next picture with something wrong, or the one before; round the end."""
        count, limits = len(self.rows), self.limits
        places = ((self.cursor + by * distance) % count for distance in range(1, count + 1))
        return next((place for place in places if is_problem(self.rows[place], limits)), None)

    def _read_filter(self) -> None:
        try:
            self._query, self.fault = self.catalog.query(self.session.filter), None
        except QueryError as err:
            self.fault = err

    def _place(self, near: bool) -> int:
        """Where the cursor belongs: at the user's picture, else (``near``) where it was, else at the top."""
        # The user's own choice comes back when a filter that hid it goes.
        for wanted in (self.session.cursor, str(self.chosen.path) if near and self.chosen else ""):
            row = self._by_path.get(wanted)
            if row is not None and row in self.rows:
                return self.rows.index(row)
        return max(0, min(self.cursor, len(self.rows) - 1)) if near else 0
