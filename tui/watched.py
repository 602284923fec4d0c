"""A run that a screen looks at: the one that the workbench shows, or any other, live or past.

The workbench's own bridge is used where it has the run; another run gets a bridge of its own, let go of at the end.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.commands import Command
from tui.bridge import Bridge, PastRun
from tui.view import RunView
from tui.workplace import Workplace


class WatchedRun:
    """The run in ``folder``, with its newest view."""

    def __init__(self, workplace: Workplace, folder: Path) -> None:
        self.folder = folder
        shown = workplace.run
        mine = shown is not None and shown.folder is not None and _same(shown.folder.root, folder)
        self._own = None if mine else Bridge(PastRun(folder))
        self._bridge = self._own or workplace.bridge
        self._workplace = workplace

    @property
    def view(self) -> RunView:
        """The newest state; empty until a run that is not the workbench's was read."""
        return self._bridge.view if self._bridge is not None else RunView()

    @property
    def read(self) -> bool:
        """Whether its events were read."""
        return self.view.seq > 0

    @property
    def live(self) -> bool:
        """Whether this process trains it, so that it takes commands."""
        return self._own is None and self._workplace.live

    def poll(self) -> None:
        """Take what is new; the workbench's run is kept up to date by the workbench."""
        if self._own is not None:
            self._own.poll()

    def read_again(self) -> None:
        """Read its events anew, unless it is live here: pictures may have been drawn of it since it ended."""
        if not self.live:
            self.close()
            self._own = self._bridge = Bridge(PastRun(self.folder))

    def submit(self, command: Command) -> None:
        """Queue a command for a live run."""
        if self.live and self._workplace.run is not None:
            self._workplace.run.submit(command)

    def close(self) -> None:
        """Let go of the thread."""
        if self._own is not None:
            self._own.close()


def _same(one: Path, two: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(two)
