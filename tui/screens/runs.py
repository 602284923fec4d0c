"""All runs of the work folder: how each ended, its curve and files; to open, resume, duplicate or compare.

Returns "opened" or "started" when the workbench has something new to show, else None.
"""

from __future__ import annotations

import threading
from pathlib import Path

from textual import on, work

from engine.config_file import load_config
from engine.errors import EngineError
from engine.files import RunFolder
from tui.aside import aside
from tui.compare_text import MOST_CURVES as MOST
from tui.screens.runs_view import RunsView
from tui.units import size
from tui.widgets.notice import Notice
from tui.widgets.run_table import RunTable

LONG_S = 20.0
"""How long it is said where a report lies: long enough to read a path."""


class RunsScreen(RunsView):
    """The list and what can be done to its runs."""

    def action_mark(self) -> None:
        """Mark or unmark; of more marks than can be compared the oldest goes."""
        if self.card is not None:
            folder = self.card.summary.folder
            kept = tuple(mark for mark in self._marked if mark != folder)
            self._marked = kept if folder in self._marked else (*kept, folder)[-MOST:]
            self._show()
            self.action_move(1)

    def action_compare(self) -> None:
        """Show the marked runs side by side; one alone with that under the cursor."""
        from tui.screens.compare import CompareScreen

        by_folder = {card.summary.folder: card for card in self.cards}
        chosen = [by_folder[folder] for folder in self._marked if folder in by_folder]
        if len(chosen) < 2 and self.card is not None and self.card not in chosen:
            chosen.append(self.card)
        if len(chosen) > 1:
            self.app.push_screen(CompareScreen([card.folder for card in chosen]))
        else:
            self._say(f"Mark a run with space (up to {MOST}), then c on another compares them")

    @work(exclusive=True, group="report")
    async def action_report(self) -> None:
        """Write the report of the run under the cursor into its folder, in a thread."""
        from tui.reporting.writing import write_report

        if (card := self.card) is None:
            return
        stop = threading.Event()
        self.query_one(Notice).say(f"Writing the report of {card.summary.name} ...", LONG_S)
        try:
            written = await aside(self, None, lambda: write_report([card.folder], stop=stop))
        except EngineError as err:
            self.app.show_error(err)
            return
        finally:
            stop.set()  # the screen is left, or another report is wanted
        page, work_folder = written.page, self.workplace.folder
        shown = page.relative_to(work_folder) if page.is_relative_to(work_folder) else page
        self.query_one(Notice).say(f"Report: {shown} ({size(written.size)})", LONG_S)

    def action_copy(self) -> None:
        """The newest LoRA's path to the clipboard, or the folder's."""
        card = self.card
        if card is not None:
            newest = card.files[-1][0] if card.files else card.folder
            self.app.copy_to_clipboard(str(newest))
            self._say(f"Copied {newest.name}")

    @on(RunTable.Opened)
    def action_open(self) -> None:
        """Show the run in the workbench; the live one is there already."""
        card, shown = self.card, self.workplace.run
        if card is None:
            return
        is_shown = shown is not None and shown.folder is not None and shown.folder.root == card.folder
        if not is_shown and self.app.attempt(lambda: self.workplace.show(card.folder)) is None:
            return
        self.workplace.session.pane = "training"
        self.dismiss("opened")

    def action_epochs(self) -> None:
        """Show the run's epochs."""
        from tui.screens.epochs import EpochsScreen

        if self.card is not None:
            self.app.push_screen(EpochsScreen(self.workplace, self.card.folder))

    def action_resume(self) -> None:
        """Go on with the run under the cursor; what changed since it was left is shown first."""
        if self.card is not None:
            self._resume(self.card.folder)

    @work(exclusive=True, group="resume")
    async def _resume(self, folder: Path) -> None:
        from tui.screens.resume import resume_after_look

        if await resume_after_look(self, self.workplace, folder):
            self.workplace.session.pane = "training"
            self.dismiss("started")

    def action_duplicate(self) -> None:
        """Set up a new run with the settings of this one."""
        from tui.screens.setup import SetupScreen

        if self.card is None:
            return
        path = RunFolder(self.card.folder).config
        if (config := self.app.attempt(lambda: load_config(path))) is None:
            return
        self.app.push_screen(SetupScreen(self.workplace, config), self._set_up)

    def _set_up(self, result: str | None) -> None:
        if result is not None:
            self.dismiss(result)

    def _say(self, text: str) -> None:
        self.query_one(Notice).say(text)
