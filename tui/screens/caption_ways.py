"""What the caption pane asks of the screen around it: a place for a trigger word, and the user's own editor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from tui.screens.panes import PaneScreen

if TYPE_CHECKING:  # the first frame does not wait for them
    from engine.config import RunConfig
    from tui.caption_sheet import Sheet
    from tui.widgets.caption import CaptionPane
    from tui.widgets.caption_aids import CaptionAids


class CaptionWays(PaneScreen):
    """A screen with a caption pane, as far as the pane leads out of it."""

    @property
    def _caption(self) -> CaptionPane:
        return cast("CaptionPane", self.query_one("#caption"))

    def set_up(self, config: RunConfig | None, changes: dict[str, Any] | None = None) -> None:
        """Open the setup form. The workbench's."""
        raise NotImplementedError

    def on_caption_aids_trigger_chosen(self, event: CaptionAids.TriggerChosen) -> None:
        """A trigger word belongs to the configuration: the form is opened with it, to be looked at and kept."""
        config = self.workplace.config
        if config is not None:
            self.set_up(config, {"dataset.captions.trigger_word": event.word})
            return
        self.app.copy_to_clipboard(event.word)
        self.app.say(f"{event.word} is copied: the setup form (ctrl+n) has a field for it", 8.0)

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
