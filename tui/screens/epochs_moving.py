"""Moving through a run's epochs, prompts and curves, and from part to part of the screen; it changes nothing."""

from __future__ import annotations

from dataclasses import replace

from textual import on
from textual.events import DescendantFocus
from textual.widgets import Input

from tui.epochs_shown import Shown
from tui.keys.epochs import EPOCHS_KEYS
from tui.keys.key import bindings
from tui.screens.epochs_view import PARTS, EpochsView
from tui.widgets.epoch_grid import EpochGrid
from tui.widgets.epoch_plot import SIGNALS
from tui.widgets.epoch_table import EpochChosen


class EpochsMoving(EpochsView):
    """The view with a cursor."""

    BINDINGS = bindings(EPOCHS_KEYS)

    def go_to(self, part: str) -> None:
        """Make a part the current one: alone on a small or zoomed screen."""
        self.part = part
        self.lay_out(self.app.size.width, self.app.size.height)
        # What was hidden cannot take the focus before it is laid out.
        self.call_after_refresh(self.query_one(f"#{part}").focus)

    @on(DescendantFocus)
    def _focused(self, event: DescendantFocus) -> None:
        if event.widget.id in PARTS and event.widget is self.focused and event.widget.id != self.part:
            self.part = event.widget.id
            self.lay_out(self.app.size.width, self.app.size.height)

    @on(EpochChosen)
    def _chosen(self, event: EpochChosen) -> None:
        if event.prompt >= 0:
            self.shown = replace(self.shown, prompt=event.prompt)
        self.move_to(self.shown.moved(self.shown.at + event.by) if event.by else self.shown.at_epoch(event.epoch))

    def move_to(self, shown: Shown) -> None:
        """Draw with the cursor elsewhere."""
        self.shown = replace(shown, untouched=self.shown.untouched and shown.at == self.shown.at)
        self.draw_cursor()

    @property
    def typing(self) -> bool:
        """Whether a note is being typed."""
        return isinstance(self.focused, Input)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Letters are text while a note is typed."""
        if self.typing:
            return action == "back" or not hasattr(type(self), f"action_{action}")
        return True

    def action_step(self, by: int) -> None:
        """Go on by epochs."""
        self.move_to(self.shown.moved(self.shown.at + by))

    def action_edge(self, last: int) -> None:
        """To the first or the last epoch."""
        self.move_to(self.shown.moved(len(self.shown.rows) if last else 0))

    def action_line(self, by: int) -> None:
        """To another prompt; in the table to another epoch."""
        if self.part == "table":
            self.action_step(by)
        elif self.shown.prompts:
            prompt = max(0, min(self.shown.prompt + by, len(self.shown.prompts) - 1))
            self.move_to(replace(self.shown, prompt=prompt))

    def action_advised(self) -> None:
        """To the advised epoch."""
        if self.shown.advice.best:
            self.move_to(self.shown.at_epoch(self.shown.advice.best))
        else:
            self.app.say("No epoch is advised: too little was measured")

    def action_signal(self) -> None:
        """The next curve."""
        self.move_to(replace(self.shown, signal=(self.shown.signal + 1) % len(SIGNALS)))

    def action_strengths(self) -> None:
        """Strengths of one prompt, or all prompts again."""
        self.move_to(replace(self.shown, by_strength=not self.shown.by_strength))
        self.go_to("pictures")

    def action_own(self, by: int) -> None:
        """The dataset's next pictures beside the samples; after the last the first again."""
        grid, count, at = self.query_one(EpochGrid), len(self.shown.own), self.shown.own_at
        if not grid.size.width:
            self.go_to("pictures")
        elif not count or count <= grid.own_step:
            self.app.say("These are all of the dataset's pictures" if count else "No picture of the dataset is known")
        else:
            at += by * grid.own_step
            last = (count - 1) // grid.own_step * grid.own_step
            self.move_to(replace(self.shown, own_at=0 if at >= count else last if at < 0 else at))

    def action_pane(self, by: int) -> None:
        """The next part of the screen."""
        self.go_to(PARTS[(PARTS.index(self.part) + by) % len(PARTS)])

    def action_zoom(self) -> None:
        """One part alone, or all."""
        self.toggle_class("-zoom")
        self.go_to(self.part)

    def action_refresh(self) -> None:
        """Read all again."""
        self.run.read_again()
        self.read()
