"""The log pane: the newest lines, wrapped, with scrolling that stays where the reader is."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import ClassVar

from rich.style import Style
from textual.events import MouseScrollDown, MouseScrollUp
from textual.strip import Strip

from tui.keys.key import bindings
from tui.keys.run import LOG_KEYS
from tui.safe import safe
from tui.view import LogLine, RunView
from tui.widgets.cells import CellWidget, Run, strip_of, wrap

TIME = 9


class LogPane(CellWidget, can_focus=True):
    """Log lines with their time; warnings and errors carry a sign besides their colour."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--time", "log--warning", "log--error"}
    BINDINGS = bindings(LOG_KEYS)
    TOPICS = frozenset({"log"})

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.back = 0
        """Lines of the log hidden below the last one shown; 0 follows the newest."""
        self._seen = 0

    def content_key(self) -> Hashable:
        """Newest line and place."""
        return self.view.log_total, self.back

    def show(self, view: RunView) -> None:
        """Take new lines; a reader who scrolled back stays where they are."""
        if self.back:
            self.action_scroll(max(0, view.log_total - self._seen))
        self._seen = view.log_total
        super().show(view)

    def action_scroll(self, lines: int) -> None:
        """Move by ``lines``, upwards when positive."""
        self.back = max(0, min(max(0, len(self.view.log) - 1), self.back + lines))
        self.border_subtitle = safe(f"{self.back} newer lines, end to follow" if self.back else "")
        self.refresh()

    def action_page(self, pages: int) -> None:
        """Move by whole panes."""
        self.action_scroll(pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """Show the oldest line kept."""
        self.action_scroll(len(self.view.log))

    def action_last(self) -> None:
        """Follow the newest line."""
        self.action_scroll(-len(self.view.log))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Three lines up."""
        self.action_scroll(3)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Three lines down."""
        self.action_scroll(-3)

    def paint(self, width: int, height: int) -> list[Strip]:
        """The lines that end at the place looked at, bottom up until the pane is full."""
        blank = self.rich_style
        lines = list(self.view.log)
        end = max(0, len(lines) - self.back)
        rows: list[list[Run]] = []
        for line in reversed(lines[max(0, end - height) : end]):
            rows[:0] = self._wrapped(line, width)
            if len(rows) >= height:
                break
        return [strip_of(row, width, blank) for row in rows[-height:]]

    def _wrapped(self, line: LogLine, width: int) -> list[list[Run]]:
        style, sign = self._level(line.level)
        clock = time.strftime("%H:%M:%S ", time.localtime(line.time)) if width >= 40 else ""
        text = f"{sign} {line.text}" if sign else line.text
        pieces = wrap(text, max(8, width - len(clock)))
        rows: list[list[Run]] = []
        for piece in pieces:
            lead = clock if not rows else " " * len(clock)
            rows.append([(lead, self.style_of("log--time")), (piece, style)])
        return rows

    def _level(self, level: str) -> tuple[Style, str]:
        if level == "warning":
            return self.style_of("log--warning"), self.glyphs.warning
        if level == "error":
            return self.style_of("log--error"), self.glyphs.error
        return self.rich_style, ""
