"""Dataset and caption pane as one tool: the row under the cursor is the caption shown, and edits count in the run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from textual.timer import Timer

from tui.screens.panes import PaneScreen
from tui.view import RunView

if TYPE_CHECKING:  # the first frame does not wait for them
    from tui.catalog import Row
    from tui.widgets.caption import CaptionPane
    from tui.widgets.dataset import DatasetPane

SETTLE_S = 0.06
"""The cursor must rest this long before picture and caption follow: a held key does not decode every row."""


class EditingScreen(PaneScreen):
    """A screen with a dataset and a caption pane, and how they work together."""

    _follow: Timer | None = None

    @property
    def _dataset(self) -> DatasetPane:
        return cast("DatasetPane", self.query_one("#dataset"))

    @property
    def _caption(self) -> CaptionPane:
        return cast("CaptionPane", self.query_one("#caption"))

    def on_dataset_pane_row_chosen(self, event: DatasetPane.RowChosen) -> None:
        """Show the row's picture and caption once the cursor rests; at once while typing goes on in the caption."""
        if self._follow is not None:
            self._follow.stop()
        caption = self._caption
        if caption.row is None or event.row is None or self.current == "caption":
            caption.show_row(event.row)
        else:
            row = event.row
            self._follow = self.set_timer(SETTLE_S, lambda: caption.show_row(row))

    def on_edit_wanted(self) -> None:
        """Type in the caption of the row under the cursor."""
        self._caption.show_row(self._dataset.chosen)
        self.go_to("caption")

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

    def forget_taken(self) -> None:
        """Rows whose edits the run took up, or of a run that is over, say nothing of it any more."""
        edited, view = self.workplace.session.edited, self.run_view
        for path, epoch in list(edited.items()):
            if not view.live or view.epoch >= epoch or view.captions_taken.get(path, 0) >= epoch:
                del edited[path]


def epoch_of_edit(view: RunView) -> int:
    """The epoch from which a caption written now counts: the run looks at them just before an epoch's first step.

    Saving and drawing samples at an epoch's end come before that look, encoding what was found comes after it.
    """
    looked = view.state == "caching" and bool(view.recent)
    return max(1, view.epoch) + 1 + looked
