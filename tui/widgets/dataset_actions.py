"""What the dataset pane's keys do: the actions, apart from how the pane is made and kept up to date."""

from __future__ import annotations

import os
from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message

from tui.catalog import SORTS
from tui.keys.dataset import DATASET_KEYS
from tui.keys.key import bindings
from tui.listing import Listing
from tui.widgets.dataset_batches import BatchActions
from tui.widgets.dataset_columns import extra_of
from tui.widgets.dataset_table import DatasetTable
from tui.widgets.dataset_ways import DatasetWays


class EditWanted(Message):
    """The current picture's caption is to be edited."""


class LargeWanted(Message):
    """The current picture is to be shown large."""


class DatasetActions(DatasetWays, BatchActions):
    """Base of the pane: one method a key."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(DATASET_KEYS)
    listing: Listing
    busy = False
    """Captions are being taken back: esc stops that."""

    @property
    def table(self) -> DatasetTable:
        """The rows."""
        return self.query_one(DatasetTable)

    def open_filter(self) -> None:
        """Let the user type words."""
        raise NotImplementedError

    def leave_filter(self, cleared: bool) -> None:
        """Go back to the table, all of it when ``cleared``."""
        raise NotImplementedError

    @property
    def typing(self) -> bool:
        """Whether words are being typed: then the keys belong to them, but for those that move the cursor."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a dataset the keys that need one are free for others; esc too while everything is shown."""
        if self.typing and action not in ("move", "page"):
            return not hasattr(DatasetActions, f"action_{action}")
        if action == "all":
            return bool(self.listing.session.filter) and not self.busy
        if action == "refresh":
            return self.listing.catalog.state != "empty"
        # With a filter that finds nothing they stay ours, and do nothing: no surprise by a key of the screen.
        return bool(self.listing.catalog.rows) or not hasattr(DatasetActions, f"action_{action}")

    def action_move(self, by: int) -> None:
        """Go to the next picture, or the one before."""
        self.go(self.listing.cursor + by)

    def action_page(self, pages: float) -> None:
        """Go a page or half a page."""
        self.go(self.listing.cursor + int(pages * max(2, self.table.size.height - 1)))

    def action_end(self, index: int) -> None:
        """Go to the first picture, or the last."""
        self.go(index % max(1, len(self.listing.rows)))

    def action_edit(self) -> None:
        """Edit the caption; the picture stays the current one when the filter goes."""
        self.go(self.listing.cursor)
        if self.listing.chosen is not None:
            self.post_message(EditWanted())

    def action_large(self) -> None:
        """Show the picture large."""
        if self.listing.chosen is not None:
            self.post_message(LargeWanted())

    def action_filter(self) -> None:
        """Type words to look for."""
        self.open_filter()

    def action_all(self) -> None:
        """Show all pictures again."""
        self.leave_filter(cleared=True)

    def action_sort(self) -> None:
        """Sort by the next column of those in sight, or by sharpness or loss where they were measured."""
        shown = [column.key for column in self.table.columns]
        sorts = [sort for sort in SORTS if sort in shown or (extra_of(sort) and self.listing.knows(sort))]
        current = self.listing.session.sort
        at = sorts.index(current) if current in sorts else -1
        self.listing.order(sorts[(at + 1) % len(sorts)], False)
        self.show()

    def action_reverse(self) -> None:
        """Turn the order round."""
        session = self.listing.session
        self.listing.order(session.sort, not session.descending)
        self.show()

    def action_stars(self, by: int) -> None:
        """Give a star, or take one."""
        if (row := self.listing.chosen) is not None:
            if self.listing.catalog.rate(row, row.stars + by):
                self.show()
            else:
                self.say(
                    "These pictures belong to lorakiln and take no stars; ctrl+n copies them into a dataset of yours"
                )

    def action_problem(self, by: int) -> None:
        """Go to the next picture with something wrong, round the end."""
        place = self.listing.next_problem(by)
        if place is None:
            self.say("Nothing is wrong with the pictures listed")
        else:
            self.go(place)

    def action_copy(self) -> None:
        """Copy the path to the terminal's clipboard."""
        if (row := self.listing.chosen) is not None:
            # A name that is no UTF-8 cannot be copied as it is.
            self.app.copy_to_clipboard(os.fsencode(row.path).decode("utf-8", "replace"))
            self.say(f"Copied the path of {row.name}")

    def action_refresh(self) -> None:
        """Look at the folder again, and find anew."""
        self.listing.catalog.refresh()
        self.listing.find(near=True)
        self.show()
