"""A file of steps that were done, which only grows: one line of sealed JSON for each thing that happened.

Comes in: lines of whoever derives from it. Goes out: the same lines again after a restart, or from another process.
Whoever adds a line holds the file (flock) and has read what others added before. Lines that are damaged are passed
over and counted, a torn end is written over. Stands alone because captions and mendings have a journal each.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from engine.files import atomic_write, disk_error, flush, open_to_read, opened_here
from engine.sealed import sealed, unsealed

MOST_BYTES = 64 * 2**20
"""A larger file is cut to the newest steps, about half of it, when it is opened."""


class StepFile:
    """The file, read at the first question. Any thread, any process; the parts with an underscore hold ``_lock``.

    Args:
        path: the file; None keeps everything in memory.

    Attributes:
        damaged: lines that could not be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.damaged = 0
        self._lock = threading.Lock()
        self._forget()

    def _clear(self) -> None:
        """Forget all steps."""
        raise NotImplementedError

    def _take_record(self, record: Any) -> bool:
        """Take up what a line says, whatever that is; False for what is no line of this journal."""
        raise NotImplementedError

    def _newest(self) -> Iterator[bytes]:
        """The lines of each step, the newest step first, for a file that is cut."""
        raise NotImplementedError

    def _tail(self, steps: int) -> bytes:
        """Lines behind those of so many newest steps, in a file that is cut."""
        return b""

    def _forget(self) -> None:
        self._clear()
        self._whole = 0
        """Bytes of the whole lines that were read; what stands behind them is torn, or somebody else's news."""
        self._file: tuple[int, int] | None = None
        """Which file they were read from."""

    @contextlib.contextmanager
    def _appending(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Hold the file, having read it to its end; yields what writes a line behind the last whole one."""
        if self.path is None:
            yield lambda record: None
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with self._opened(self.path) as file:

                def append(record: dict[str, Any]) -> None:
                    if file.tell() > self._whole:
                        file.truncate(self._whole)
                    self._whole += file.write(sealed_line(record))

                yield append
                file.flush()
                os.fsync(file.fileno())
            if new:  # its name must stand, too
                flush(self.path.parent)
        except OSError as err:
            self._forget()  # what stands there is read again
            raise disk_error(err, self.path) from err

    def _opened(self, path: Path) -> IO[bytes]:
        """The file, held and read."""
        while True:
            file = open(path, "ab", opener=opened_here)  # noqa: SIM115 - the caller's to close
            try:
                with contextlib.suppress(OSError):  # some network disks know no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                self._read()
                if self._file == _identity(file):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # it was cut to its newest steps meanwhile: what is held is the former one

    def _read(self, shorten: bool = True) -> None:
        """Read what is new in the file; all of it where it is another one. Too long a file is shortened then."""
        if self.path is None:
            return
        try:
            with open_to_read(self.path) as file:
                this, size = _identity(file), os.fstat(file.fileno()).st_size
                if this != self._file or size < self._whole:
                    self._forget()
                    self.damaged = 0
                begun = self._file is not None
                if size > self._whole:
                    file.seek(self._whole)
                    self._take_lines(file.read())
                self._file = this
        except FileNotFoundError:
            self._forget()
            return
        except OSError as err:
            raise disk_error(err, self.path) from err
        if shorten and not begun and self._whole > MOST_BYTES:
            self._shorten()

    def _take_lines(self, data: bytes) -> None:
        """Take up lines, as far as they are whole: what is torn is written over."""
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            self._whole += len(line)
            try:
                known = self._take_record(unsealed(line))
            except ValueError:
                known = False
            self.damaged += not known

    def _shorten(self) -> None:
        """Write the file anew with its newest steps."""
        assert self.path is not None
        kept: list[bytes] = []
        size = 0
        for lines in self._newest():
            size += len(lines)
            if kept and size > MOST_BYTES // 2:
                break
            kept.insert(0, lines)
        atomic_write(self.path, b"".join(kept) + self._tail(len(kept)))
        self._forget()
        self._read(shorten=False)  # a single step may be as long as it is


def sealed_line(record: dict[str, Any]) -> bytes:
    """A line of the file."""
    return sealed(json.dumps(record, ensure_ascii=True)).encode() + b"\n"


def _identity(file: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino
