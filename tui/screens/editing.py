"""Dataset and caption pane as one tool: the row under the cursor is the caption shown, and edits count in the run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from textual.timer import Timer

from engine.commands import MeasurePictures
from engine.text import safe_text
from tui.screens.caption_ways import CaptionWays
from tui.session import NEXT_START
from tui.view import RunView

if TYPE_CHECKING:  # the first frame does not wait for them
    from tui.catalog import Row
    from tui.screens.crop import CropScreen
    from tui.screens.large_picture import LargePictureScreen
    from tui.widgets.caption import CaptionPane
    from tui.widgets.dataset import DatasetPane

SETTLE_S = 0.06
"""While a key is held the cursor must rest this long before picture and caption follow: not every row is decoded."""

HELD_S = 0.2
"""Rows that follow each other sooner than this come from a key that is held, or from one pressed in a hurry."""


class EditingScreen(CaptionWays):
    """A screen with a dataset and a caption pane, and how they work together."""

    _follow: Timer | None = None
    _chosen_at = 0.0
    _losses: tuple[object, object] = None, None
    """The figures and the rows that the table's losses were taken from."""
    _worst_wanted = False

    @property
    def _dataset(self) -> DatasetPane:
        return cast("DatasetPane", self.query_one("#dataset"))

    def on_dataset_pane_row_chosen(self, event: DatasetPane.RowChosen) -> None:
        """Show the row's picture and caption: at once, but while a key is held in the table when the cursor rests."""
        before, self._chosen_at = self._chosen_at, time.monotonic()
        if self._follow is not None:
            self._follow.stop()
        caption = self._caption
        if caption.row is None or event.row is None or self.current == "caption" or self._chosen_at - before > HELD_S:
            caption.show_row(event.row)
        else:
            row = event.row
            self._follow = self.set_timer(SETTLE_S, lambda: caption.show_row(row))

    def on_crop_wanted(self) -> None:
        """Crop the picture under the cursor, and others from there."""
        from tui.screens.crop import CropScreen

        listing = self._dataset.listing
        self._show_over(CropScreen(self.workplace, listing.rows, listing.cursor, self._caption.show_mask))

    def on_large_wanted(self) -> None:
        """Show the picture under the cursor large, and others from there."""
        from tui.screens.large_picture import LargePictureScreen
        from tui.widgets.preview import pictures_are_off

        listing = self._dataset.listing
        if not pictures_are_off(self.app):
            self._show_over(LargePictureScreen(self.workplace, listing, listing.cursor, self._caption.show_mask))

    def _show_over(self, screen: CropScreen | LargePictureScreen) -> None:
        self.app.push_screen(screen, lambda path: self._left(path, screen.masks))

    def _left(self, path: str | None, masks: bool) -> None:
        """The picture shown last is the current one, and masks are shown as they were there."""
        if masks != self._caption.show_mask:
            self._caption.flip_mask()
        dataset = self._dataset
        at = next((n for n, row in enumerate(dataset.listing.rows) if str(row.path) == path), None)
        if at is not None:
            dataset.go(at)
        self.go_to(self.current)

    def on_mask_wanted(self) -> None:
        """Show masks over the pictures, or hide them."""
        self._dataset.say(self._caption.flip_mask())

    def on_edit_wanted(self) -> None:
        """Type in the caption of the row under the cursor."""
        self._caption.show_row(self._dataset.chosen)
        self.go_to("caption")

    def on_findings_wanted(self) -> None:
        """Check the dataset; a picture chosen there becomes the current one."""
        from tui.screens.findings import FindingsScreen

        self.app.push_screen(FindingsScreen(self.workplace), self._chosen_in_findings)

    def _chosen_in_findings(self, path: str | None) -> None:
        if path:
            self._dataset.reveal(Path(path))
        self.go_to("dataset")

    def on_balance_wanted(self) -> None:
        """Show how often an epoch shows each folder."""
        from tui.screens.balance import BalanceDialog

        self.app.push_screen(BalanceDialog(self.workplace.catalog.rows))

    def on_caption_pane_step_wanted(self, event: CaptionPane.StepWanted) -> None:
        """The next picture, without leaving the text."""
        self._dataset.step(event.by)

    def on_caption_pane_back_wanted(self) -> None:
        """Back to the table, or out of the zoom."""
        self.go_to("dataset")

    def on_caption_pane_caption_saved(self, event: CaptionPane.CaptionSaved) -> None:
        """The row is another one now."""
        self.count_edits([event.row])

    def count_edits(self, rows: Iterable[Row]) -> None:
        """A live run takes new texts up with its next epoch: their rows say so."""
        view = self.run_view
        epoch = epoch_of_edit(view)
        if self.workplace.live and view.live and epoch <= (view.epochs or 10**9):
            self.workplace.session.edited.update((str(row.path), epoch) for row in rows)

    def action_losses(self) -> None:
        """Have the run measure its pictures after this step; asked for meanwhile, it ends that."""
        if self.run_view.name and not self.run_view.live:
            self.app.say(f"The run has ended: kiln losses {safe_text(self.run_view.name, 60)} measures its pictures")
            return
        self._worst_wanted = True
        self.send(MeasurePictures(), "Measuring each picture after this step; L again ends that")

    def take_losses(self) -> None:
        """Show what the run says of its pictures; the worst come first where the user asked for it."""
        catalog, view = self.workplace.catalog, self.run_view
        figures = view.pictures.shown
        if self._losses[0] is figures and self._losses[1] is catalog.rows:
            return
        news = self._losses[0] is not figures
        self._losses = figures, catalog.rows
        if figures or any(row.loss is not None for row in catalog.rows):
            catalog.take_losses(figures)
        if self._worst_wanted and news and figures is view.pictures.fixed:
            self._worst_wanted = False
            self._dataset.listing.order("loss", True)
            self._dataset.show()

    def forget_taken(self) -> None:
        """Rows whose edits the run took up, or of a run that is over, say nothing of it any more.

        Notes that change what a live run is made of count from its next start.
        """
        edited, view, reshaped = self.workplace.session.edited, self.run_view, self.workplace.catalog.reshaped
        if reshaped:
            if self.workplace.live and view.live:
                edited |= dict.fromkeys(reshaped, NEXT_START)
            reshaped.clear()
        for path, epoch in list(edited.items()):
            if not view.live or view.epoch >= epoch or view.captions_taken.get(path, 0) >= epoch:
                del edited[path]


def epoch_of_edit(view: RunView) -> int:
    """The epoch from which a caption written now counts: the run looks at them just before an epoch's first step.

    Saving and drawing samples at an epoch's end come before that look, encoding what was found comes after it.
    """
    looked = view.state == "caching" and bool(view.recent)
    return max(1, view.epoch) + 1 + looked
