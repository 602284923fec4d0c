"""Going on with a run from a screen: what changed since it was left is shown first, where anything did.

The look reads the disk in a thread; the screen stays as it is meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from engine.errors import EngineError
from tui.aside import aside
from tui.differences import outlook_lines, refused
from tui.keys.dialogs import CHANGES_KEYS
from tui.keys.key import bindings
from tui.resuming import look_before
from tui.safe import safe
from tui.screens.dialogs import Dialog

if TYPE_CHECKING:
    from tui.app import KilnApp
    from tui.workplace import Workplace


class ChangesDialog(Dialog):
    """What changed since a run was left; returns "go" with enter, None with esc."""

    BINDINGS = bindings(CHANGES_KEYS)

    def __init__(self, name: str, lines: Sequence[str], can_go_on: bool) -> None:
        super().__init__()
        self._name = name
        self._lines = lines
        self._can_go_on = can_go_on

    def compose(self) -> ComposeResult:
        """The list, and what enter does."""
        with Vertical(classes="box -wide"):
            yield Static(safe(f"Not as it was when {self._name} was left"), classes="title")
            with VerticalScroll(classes="text"):
                yield Static(safe("\n".join(self._lines), 20_000, newlines=True), id="changes")
            yield Static(
                safe("enter goes on with it, esc does not")
                if self._can_go_on
                else safe("esc closes this; a new run takes it up with lora.resume_from"),
                classes="foot",
            )

    def on_mount(self) -> None:
        """A long list scrolls by keys."""
        self.query_one(VerticalScroll).focus()

    def action_accept(self) -> None:
        """Go on, where it can be."""
        if self._can_go_on:
            self.dismiss("go")


async def resume_after_look(screen: Screen[Any], workplace: Workplace, folder: Path) -> bool:
    """Go on with the run in ``folder`` unless what changed makes the user think again; True if it goes on.

    For a worker of ``screen``: it waits for the disk and for the user.
    """
    app: KilnApp = screen.app  # type: ignore[assignment]
    try:
        ahead = await aside(screen, None, look_before, folder)
        lines = outlook_lines(ahead)
        if lines and await app.push_screen_wait(ChangesDialog(folder.name, lines, not refused(ahead))) is None:
            return False
        workplace.resume(folder)
    except EngineError as err:
        app.show_error(err)
        return False
    return True
