"""Temporary files: held while they are written, so that what a killed writer left is told from them and removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

_TEMP = re.compile(r"\.[0-9a-f]{12}\.part")
_cleared: set[Path] = set()
"""Folders that this process has cleared up: what it leaves itself it removes."""


@contextlib.contextmanager
def held(temp: Path) -> Iterator[None]:
    """Make ``temp`` and hold it, so that nobody takes it for what a kill left."""
    fd = _locked(temp)
    try:
        yield
    finally:
        os.close(fd)


def _locked(temp: Path) -> int:
    while True:
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):  # some network disks know no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # another process cleared it up in the moment before it was locked


def clear_up(folder: Path) -> int:
    """Remove the temporary files that killed writers left in ``folder``; returns how many."""
    cleared = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if _TEMP.fullmatch(entry.name)]:
            # Gone meanwhile, held by a living writer, or not ours to remove: none of these is in anyone's way.
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
                cleared += 1
    return cleared


def clear_up_once(folder: Path) -> None:
    """:func:`clear_up`, at the first call for a folder."""
    if folder not in _cleared:
        _cleared.add(folder)
        clear_up(folder)
