"""One line that says for a moment that a command was taken; errors are toasts and dialogs instead.

The application's ``say`` finds the one on the screen. It lies over the footer and takes no room while silent.
"""

from __future__ import annotations

from textual.timer import Timer
from textual.widgets import Static

from tui.safe import safe

SHOWN_S = 3.0


class Notice(Static):
    """The line; mounted once on every screen that commands are given on."""

    DEFAULT_CSS = """
    Notice {
        layer: notice; dock: bottom; display: none;
        height: 1; width: 100%; padding: 0 1;
        background: $panel; color: $text-accent; text-style: bold;
        &.-shown { display: block; }
    }
    """

    _timer: Timer | None = None

    def say(self, text: str, seconds: float = SHOWN_S) -> None:
        """Show ``text``, cleaned, until ``seconds`` are over or something else is said; an empty one is silence."""
        self.update(safe(text, 300))
        self.set_class(bool(text), "-shown")
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(seconds, self._hide)

    def _hide(self) -> None:
        self.remove_class("-shown")
