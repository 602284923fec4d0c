"""Jump keys: every part of the screen that can be gone to gets a letter; pressing it goes there.

Where a screen has panes these are the parts, the hidden ones too; else whatever takes the focus and is in sight.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.events import Click, Key
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from engine.text import safe_text
from tui.keys.dialogs import JUMP_KEYS
from tui.keys.key import bindings
from tui.safe import safe

LETTERS = "asdfghjklqwertyuiopzxcvbnm"

PLACE = "jump-place"
"""Class of the parts that have a name and can be gone to while they are hidden."""


def targets(screen: Screen[object]) -> list[tuple[str, Widget]]:
    """What can be gone to on ``screen`` with its letter: named parts in their order, else from top left to right."""
    widgets: list[Widget] = list(screen.query(f".{PLACE}"))
    if not widgets:
        widgets = [widget for widget in screen.focus_chain if screen.find_widget(widget).visible_region.area]
        widgets.sort(key=lambda widget: (widget.region.y, widget.region.x))
    return list(zip(LETTERS, widgets, strict=False))


class JumpScreen(ModalScreen[Widget | None]):
    """Letters over the parts of the screen below; any other key leads back."""

    BINDINGS = bindings(JUMP_KEYS)

    def __init__(self, given: list[tuple[str, Widget]]) -> None:
        super().__init__()
        self._targets = given

    def compose(self) -> ComposeResult:
        """The letters, each at its part; those of hidden parts at the bottom, with their names."""
        hidden = []
        for letter, widget in self._targets:
            if widget.region.area:
                label = Static(safe(f" {letter} "), classes="letter")
                label.styles.offset = self._corner(widget)
                yield label
            else:
                hidden.append(f"{letter} {safe_text(widget.name or '', 20)}")
        words = f"A letter goes there: {', '.join(hidden)}" if hidden else "A letter goes there"
        yield Static(safe(f"{words}; esc back"), classes="foot")

    @staticmethod
    def _corner(widget: Widget) -> tuple[int, int]:
        """On the frame, before the title; of a part without a frame in front of it where there is room."""
        framed = widget.has_class(PLACE) or bool(widget.styles.border_top[0])
        return (widget.region.x if framed else max(0, widget.region.x - 3)), widget.region.y

    def on_key(self, event: Key) -> None:
        """A letter goes to its part; any other key back."""
        chosen = dict(self._targets).get(event.character or "")
        if chosen is not None or len(event.key) == 1:
            event.stop()
            self.dismiss(chosen)

    def on_click(self, event: Click) -> None:
        """A click goes to the part under it."""
        for _, widget in reversed(self._targets):
            if widget.region.contains(event.screen_x, event.screen_y):
                self.dismiss(widget)
                return
        self.dismiss(None)

    def action_close(self) -> None:
        """Back."""
        self.dismiss(None)
