"""The list of what is wrong with a dataset: checking it in a thread, showing, moving.

The part of :class:`tui.screens.findings.FindingsScreen` that changes nothing.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.events import Click, Resize
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.dataset.check import Inspection
from engine.dataset.survey import Stopped
from engine.errors import EngineError
from engine.text import safe_text
from tui.aside import aside
from tui.findings import Line, inspect, lines_of, summary
from tui.keys.findings import FINDINGS_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.widgets.keyline import KeyLine
from tui.widgets.marked_list import MarkedList
from tui.widgets.notice import Notice

if TYPE_CHECKING:
    from tui.app import KilnApp
    from tui.workplace import Workplace

WIDE = 110
POLL_S = 0.25
_SIGNS = {"error": "E", "warning": "!", "note": "i"}
_STYLES = {"error": "$text-error", "warning": "$text-warning", "note": "$foreground-muted"}


class FindingsList(MarkedList):
    """Lines to choose from; a click goes to a line, another one on it takes it."""

    def on_click(self, event: Click) -> None:
        """What is read about a line stands beside it: a first click must not lead away."""
        clicked = event.style.meta.get("option")
        if clicked is not None and clicked != self.highlighted:
            event.prevent_default()
            event.stop()
            self.highlighted = clicked


class FindingsView(Screen[str | None]):
    """The list without what is done about it."""

    app: KilnApp

    CSS_PATH = "findings.tcss"
    BINDINGS = bindings(FINDINGS_KEYS)
    AUTO_FOCUS = "#lines"

    def __init__(self, workplace: Workplace) -> None:
        super().__init__()
        self.workplace = workplace
        self.found: Inspection | None = None
        self.lines: list[Line] = []
        self.busy = ""
        """What is being done, safe to show; empty when nothing is."""
        self._left = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="findings")

    def compose(self) -> ComposeResult:
        """What is going on, the list, about the line under the cursor."""
        yield Static(id="head")
        with Container(id="body"):
            yield FindingsList(id="lines", markup=False)
            with VerticalScroll(id="about", can_focus=False):
                yield Static(id="words")
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """Check the dataset."""
        self.set_class(self.app.size.width < WIDE, "-narrow")
        self.set_interval(POLL_S, self._show_head)
        self.check()

    def on_unmount(self) -> None:
        """Let the thread go."""
        self._left.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def on_resize(self, event: Resize) -> None:
        """What to do beside the list, or below it."""
        self.set_class(event.size.width < WIDE, "-narrow")

    @work(exclusive=True, group="check")
    async def check(self) -> None:
        """Check in a thread; what was found before stays in sight until then."""
        self._tell(0, 0)
        try:
            self.found = await aside(self, self._pool, inspect, self.workplace, self._tell, self._left.is_set)
        except Stopped:
            return
        except EngineError as err:
            self.app.show_error(err)
        finally:
            self.busy = ""
        if self.found is not None:
            self._show(self.found)

    def _tell(self, done: int, total: int) -> None:
        """How far the check is; called in its thread."""
        self.busy = f"Checking the dataset {done:,}/{total:,}" if total else "Checking the dataset"

    def _show(self, found: Inspection) -> None:
        lines = self.query_one("#lines", OptionList)
        at = lines.highlighted or 0
        self.lines = lines_of(found.problems)
        lines.clear_options()
        lines.add_options([Option(_content(line)) for line in self.lines])
        if self.lines:
            lines.highlighted = min(at, len(self.lines) - 1)
        self._show_head()
        self._about()

    def _show_head(self) -> None:
        told = self.busy or (summary(self.found) if self.found is not None else "")
        self.query_one("#head", Static).update(safe(told, 300))

    @on(OptionList.OptionHighlighted)
    def _about(self) -> None:
        words = self.line.about if self.line is not None else ""
        if self.line is not None and self.line.path is not None:
            words += f"\n\n{safe_text(self.line.path, 400)}"
        self.query_one("#words", Static).update(safe(words, 4000, newlines=True))

    @property
    def line(self) -> Line | None:
        """The line that commands mean."""
        at = self.query_one("#lines", OptionList).highlighted
        return self.lines[at] if at is not None and at < len(self.lines) else None

    def action_move(self, by: int) -> None:
        """The next line, or the one before."""
        lines = self.query_one("#lines", OptionList)
        (lines.action_cursor_down if by > 0 else lines.action_cursor_up)()

    def action_back(self) -> None:
        """Leave."""
        self.dismiss(None)

    def action_refresh(self) -> None:
        """Check again."""
        self.check()


def _content(line: Line) -> Content:
    heading = line.problem is None or not line.text.startswith(" ")
    if not heading or line.text.startswith(" "):
        return safe(f"   {line.text}", 400)
    sign = _SIGNS[line.finding.severity]
    return Content.assemble((f"{sign} ", _STYLES[line.finding.severity]), (safe_text(line.text, 400), "bold"))
