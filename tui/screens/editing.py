"""Dataset and caption pane as one tool: the row under the cursor is the caption shown, and edits count in the run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual.timer import Timer

from tui.screens.panes import PaneScreen
from tui.view import RunView

if TYPE_CHECKING:  # the first frame does not wait for them
    from engine.config import RunConfig
    from tui.caption_sheet import Sheet
    from tui.widgets.caption import CaptionPane
    from tui.widgets.caption_aids import CaptionAids
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

    def on_caption_aids_trigger_chosen(self, event: CaptionAids.TriggerChosen) -> None:
        """A trigger word belongs to the configuration: the form is opened with it, to be looked at and kept."""
        config = self.workplace.config
        if config is not None:
            self.set_up(config, {"dataset.captions.trigger_word": event.word})
            return
        self.app.copy_to_clipboard(event.word)
        self.app.say(f"{event.word} is copied: the setup form (ctrl+n) has a field for it", 8.0)

    def set_up(self, config: RunConfig | None, changes: dict[str, Any] | None = None) -> None:
        """Open the setup form. The workbench's."""
        raise NotImplementedError

    def on_caption_aids_editor_wanted(self, event: CaptionAids.EditorWanted) -> None:
        """Give the terminal to the user's editor, and take back what he made of the text."""
        work: Any = partial(self._edit_outside, event.sheet)  # Textual's types know no function with arguments
        self.run_worker(work, group="outside", exclusive=True)

    async def _edit_outside(self, sheet: Sheet) -> None:
        from tui.screens.outside import edited_outside

        if (home := self.app.attempt(lambda: self.workplace.home)) is None:
            return
        text = await edited_outside(self.app, home / "edit", sheet.text)
        if text is not None:
            self._caption.take_outside(sheet, text)

    def on_caption_pane_caption_saved(self, event: CaptionPane.CaptionSaved) -> None:
        """A live run takes the new text up with its next epoch: the row says so."""
        view = self.run_view
        epoch = epoch_of_edit(view)
        if self.workplace.live and view.live and epoch <= (view.epochs or 10**9):
            self.workplace.session.edited[str(event.row.path)] = epoch

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
