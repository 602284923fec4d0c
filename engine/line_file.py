"""A file of lines that grows while a run goes, and survives a disk that refuses for a while."""

from __future__ import annotations

import os
from pathlib import Path

from engine.files import opened_here

LINES_AT_ONCE = 65_536

MOST_KEPT = 16 * 2**20
"""Bytes of lines that wait in memory for the disk, at most."""


class LineFile:
    """A file that lines are appended to; what the disk refuses is kept in memory and written before the next line.

    Attributes:
        path: the file.
        error: why lines are kept; None while all of them stand.
        lost: lines that were not even kept, there being too many.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        self.lost = 0
        self._kept = bytearray()
        self._file = open(path, "ab", buffering=0, opener=opened_here)  # noqa: SIM115 - closed in close()

    def append(self, line: str) -> None:
        """Append ``line`` and a line feed."""
        data = line.encode() + b"\n"
        if len(self._kept) + len(data) > MOST_KEPT:
            self.lost += 1
        else:
            self._kept += data
        self.write()

    def write(self) -> None:
        """Write what is kept; looks at :attr:`error`, raises nothing."""
        try:
            while self._kept:
                del self._kept[: self._file.write(self._kept[:LINES_AT_ONCE])]
        except OSError as err:
            self.error = err
        else:
            self.error = None

    def duplicate(self) -> int:
        """Another descriptor of the file, the caller's to close.

        Raises:
            OSError: there is no room for one.
        """
        return os.dup(self._file.fileno())

    def close(self) -> None:
        """Write what is kept, as far as it goes, and close the file."""
        self.write()
        try:
            self._file.close()
        except OSError as err:
            self.error = err


def flush_descriptor(file: int) -> None:
    """Wait until a file's contents are on the disk, and close this descriptor of it.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.fsync(file)
    finally:
        os.close(file)
