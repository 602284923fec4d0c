"""Temporary files and folders: held while they are written, so that what a killed writer left is told and removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_TEMP = re.compile(r"\.[0-9a-f]{12}\.part")
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
"""How the system says that something stands where a folder is moved to."""

_cleared: set[Path] = set()
"""Folders that this process has cleared up: what it leaves itself it removes."""


@contextlib.contextmanager
def held(temp: Path) -> Iterator[int]:
    """Make ``temp`` and hold it, so that nobody takes it for what a kill left; yields its descriptor."""
    fd = _locked(temp, lambda: os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def held_folder(place: Path) -> Iterator[Path]:
    """Make a folder of a hidden name in ``place`` and hold it; where it is not moved away it is removed again."""
    temp = place / f".{secrets.token_hex(6)}.part"

    def make() -> int:
        temp.mkdir()
        return os.open(temp, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    fd = _locked(temp, make)
    try:
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        os.close(fd)


def _locked(temp: Path, make: Callable[[], int]) -> int:
    while True:
        try:
            fd = make()
        except FileNotFoundError:
            if not temp.parent.is_dir():
                raise
            continue  # cleared up before it was opened
        with contextlib.suppress(OSError):  # some network disks know no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        if _stands(temp, fd):
            return fd
        os.close(fd)  # another process cleared it up in the moment before it was locked


def _stands(temp: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(temp), os.fstat(fd))
    except FileNotFoundError:
        return False


def move_to_free(temp: Path, places: Iterable[Path]) -> Path | None:
    """Move a folder with something in it to the first of ``places`` where nothing stands; None where all are taken.

    Two processes that move at once get two places: a folder is never moved over one with something in it.
    """
    for place in places:
        if os.path.lexists(place):
            continue
        try:
            os.rename(temp, place)
        except OSError as err:
            if err.errno not in _TAKEN:
                raise
        else:
            return place
    return None


def clear_up(folder: Path) -> int:
    """Remove the temporary files and folders that killed writers left in ``folder``; returns how many."""
    cleared = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if _TEMP.fullmatch(entry.name)]:
            # Gone meanwhile, held by a living writer, or not ours to remove: none of these is in anyone's way.
            with contextlib.suppress(OSError):
                _remove(path)
                cleared += 1
    return cleared


def _remove(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    finally:
        os.close(fd)


def clear_up_once(folder: Path) -> None:
    """:func:`clear_up`, at the first call for a folder."""
    if folder not in _cleared:
        _cleared.add(folder)
        clear_up(folder)
