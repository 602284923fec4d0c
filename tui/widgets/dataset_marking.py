"""Marks in the dataset pane: the keys and clicks that set them, apart from what the other keys do.

Marks say which pictures a command for several is about, see :meth:`tui.listing.Listing.scope`. They stay while the
filter changes and while screens come and go, and end with the dataset.
"""

from __future__ import annotations

from textual.containers import Vertical

from tui.listing import Listing


class MarkActions(Vertical):
    """Base of the pane's actions."""

    listing: Listing

    def show(self) -> None:
        """Draw what the listing holds now; tell of another current picture."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """One line in the status line, for a moment."""
        raise NotImplementedError

    def go(self, index: int) -> None:
        """Go to the picture at ``index`` of the listing, or the nearest there is."""
        self.listing.go(index)
        self.show()

    def action_mark(self) -> None:
        """Mark the current picture, or take its mark away, and go on to the next."""
        self.listing.mark(self.listing.cursor)
        self.go(self.listing.cursor + 1)

    def action_mark_range(self) -> None:
        """Mark everything from the picture marked last to the current one; unmark where that was unmarked."""
        self.listing.mark_range(self.listing.cursor)
        self.go(self.listing.cursor)

    def action_mark_found(self) -> None:
        """Mark everything that is listed."""
        self.listing.mark_found()
        self.show()
        self.say(f"{self.listing.marked:,} marked")

    def action_unmark(self) -> None:
        """Take all marks away."""
        self.listing.unmark()
        self.show()

    def mark_by_mouse(self, index: int, through: bool) -> None:
        """Mark the picture pressed, or with ``through`` all from the one marked last."""
        if through:
            self.listing.mark_range(index)
        else:
            self.listing.mark(index)
        self.go(index)
