"""A run that another process may be training: who holds its lock, and what its events file says that is new.

Reads the disk: for threads only. The lock is asked for an instant; whoever begins a run has the patience for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.errors import RunError
from engine.events import Entry, entry_from_json
from engine.files import RunFolder, is_held, open_to_read
from engine.locks import UNNAMED, holder_in


def holder_of(lock: Path) -> str:
    """The number of the process that trains a run, as its lock file has it; empty when nobody does."""
    return str(holder_in(lock).pid or UNNAMED) if is_held(lock) else ""


def held(holder: str) -> RunError:
    """What to tell somebody who wants a run that the process ``holder`` trains."""
    hint = "Steer it where it was started; `kiln attach` in its work folder may show it there."
    return RunError("Another process trains this run", f"the process {holder}", hint)


class Watch:
    """Reads a run's events as the file grows; each look goes on where the last one ended.

    Attributes:
        holder: who trained the run just before the last look; so what was read then is all that an ended run said.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.holder = ""
        self._folder = folder
        self._at = 0

    def look(self) -> Iterator[Entry]:
        """The events that are new; foreign lines and one that is being written are passed over."""
        self.holder = holder_of(self._folder.lock)
        try:
            with open_to_read(self._folder.events) as file:
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._at += len(line)
                    try:
                        entry = entry_from_json(line.decode("utf-8", "replace"))
                    except ValueError:
                        continue
                    yield entry
        except OSError:  # no events yet, or not any more
            return
