"""Reading files that others made: regular ones only, without ever blocking, and no more than wanted.

A FIFO or device named like a picture would block the reader for ever; a file may grow while it is read. So every
file of a dataset is opened here. Stands alone because the decoder's child process uses it too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from engine.errors import DatasetError
from engine.text import safe_text

_digests: dict[tuple[int, int, int, int, int], str] = {}


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading and return its descriptor; the caller closes it.

    Raises:
        DatasetError: it cannot be opened, or is a folder, FIFO, socket or device.
    """
    try:
        # O_NONBLOCK: opening a FIFO without a writer returns at once instead of never.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as err:
        raise unreadable(path, err) from err
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise DatasetError(
        "Not a regular file", f"{safe_text(path)} is a folder, pipe, socket or device", "Remove or rename it."
    )


def unreadable(path: str | Path, err: Exception) -> DatasetError:
    """The error for a file that the system refuses to read."""
    reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return DatasetError(
        "A file cannot be read",
        f"{safe_text(path)}: {safe_text(reason)}",
        "Check that it is still there and that you may read it.",
    )


def read_limited(path: str | Path, limit: int) -> bytes:
    """Return at most ``limit + 1`` bytes of a regular file; a longer result than ``limit`` means it is too large.

    Raises:
        DatasetError: not a regular file, or not readable.
    """
    fd = open_regular(path)
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(limit + 1)
        except OSError as err:
            raise unreadable(path, err) from err


def file_digest(path: str | Path) -> str:
    """SHA-256 (hex) over all bytes of a regular file.

    Kept for the life of the process by device, inode, size, mtime and ctime: an edit that keeps size and mtime
    still changes the ctime.

    Raises:
        DatasetError: not a regular file, or not readable.
    """
    fd = open_regular(path)
    with os.fdopen(fd, "rb") as file:
        try:
            now = os.fstat(fd)
            key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            if key not in _digests:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
            return _digests[key]
        except OSError as err:
            raise unreadable(path, err) from err
