"""What of the pictures is trained on: the dataset pane's keys for exclusion, repeats, crop and mask.

Each note is written beside the pictures at once (:meth:`tui.catalog.Catalog.note`) and taken back by the same key.
"""

from __future__ import annotations

from textual.message import Message

from engine.dataset.sidecar import MAX_REPEATS
from tui.catalog import Row
from tui.widgets.dataset_marking import MarkActions

SHIPPED = "These pictures belong to lorakiln and take no notes; ctrl+n copies them into a dataset of yours"


class CropWanted(Message):
    """The current picture is to be cropped."""


class MaskWanted(Message):
    """Masks are to be shown over pictures, or hidden."""


class TrainingActions(MarkActions):
    """Base of the pane's actions."""

    def action_exclude(self) -> None:
        """Keep the pictures marked, else the current one, out of training; take them in again if all are out."""
        rows = self._noted_rows()
        out = not all(row.excluded for row in rows)
        if self._note(rows, {row: {"exclude": out or None} for row in rows}) and len(rows) > 1:
            self.say(f"{len(rows):,} pictures {'excluded' if out else 'trained on again'}")

    def action_repeats(self, by: int) -> None:
        """See the pictures marked, else the current one, once more an epoch, or once less; never less than once."""
        rows = self._noted_rows()
        notes: dict[Row, dict[str, object]] = {}
        for row in rows:
            wanted = max(1, min((row.own_repeats or row.repeats) + by, MAX_REPEATS))
            notes[row] = {"repeats": None if wanted == row.repeats else wanted}
        if rows and self._note(rows, notes):
            row = rows[0]
            own = "its own" if row.own_repeats is not None else "as its folder"
            more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
            self.say(f"{row.name}{more}: {row.own_repeats or row.repeats} times an epoch, {own}")

    def action_crop(self) -> None:
        """Crop the current picture on a screen of its own."""
        if self.listing.chosen is not None:
            self.post_message(CropWanted())

    def action_mask(self) -> None:
        """Show masks over pictures, or hide them."""
        self.post_message(MaskWanted())

    def _noted_rows(self) -> list[Row]:
        if self.listing.marked:
            return self.listing.scope()[0]
        return [self.listing.chosen] if self.listing.chosen is not None else []

    def _note(self, rows: list[Row], notes: dict[Row, dict[str, object]]) -> bool:
        """Keep what is to be said of each; False where nothing may be."""
        catalog = self.listing.catalog
        kept = [catalog.note(row, **notes[row]) for row in rows]
        if not all(kept):
            self.say(SHIPPED)
        self.show()
        return any(kept)
