"""What was done to captions, so that it can be taken back and done again, also after a restart.

Comes in: steps, each with the text of every caption before and after it. Goes out: the step to undo or redo next.
Nothing here touches a caption: :mod:`engine.dataset.applying` does. The file is one line of sealed JSON for each
thing that happened and only ever grows; a step's line stands on the disk before the first of its captions is written,
so whatever a kill leaves can be undone. Lines that are damaged are passed over, a torn end is cut off: a step that is
missing then makes nothing worse, since undoing refuses every caption that does not hold what the step left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from engine.files import atomic_write, disk_error, flush, open_to_read, opened_here
from engine.sealed import sealed, unsealed

MOST_BYTES = 64 * 2**20
"""A larger file is cut to the newest steps, about half of it, when it is opened."""


@dataclass(frozen=True)
class Change:
    """One caption before and after a step.

    Attributes:
        path: its file.
        before, after: its text, as :class:`engine.dataset.edits.CaptionFile` has it; None where there is no file.
        raw: the text before with its own line ends, where ``before`` alone would not bring them back.
    """

    path: Path
    before: str | None
    after: str | None
    raw: str | None = None


@dataclass(frozen=True)
class Step:
    """What one undo takes back: ``what`` in the user's words, and the captions."""

    what: str
    changes: tuple[Change, ...]
    number: int = field(default=0, compare=False)
    """Its place in the journal, given by :meth:`Journal.record`."""


class Journal:
    """The steps of one work folder, in a file that is read at the first question. Any thread, any process.

    Whoever adds a line holds the file (flock) and has read what others added before.

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

    def _forget(self) -> None:
        self._done: list[Step] = []
        self._undone: list[Step] = []
        self._next = 1
        self._whole = 0
        """Bytes of the whole lines that were read; what stands behind them is torn, or somebody else's news."""
        self._file: tuple[int, int] | None = None
        """Which file they were read from."""

    def record(self, step: Step) -> Step:
        """A step is about to be done; it can be undone from now on, and nothing can be redone any more.

        Returns when it is on the disk; the step returned is the one to name later.

        Raises:
            DiskError: it could not be written, or the file not read; nothing is recorded.
        """
        with self._lock, self._appending() as append:
            step = replace(step, number=self._next)
            append(_line_of(step))
            self._take("do", step)
            return step

    def amend(self, step: Step, done: Iterable[Change]) -> None:
        """Of a step just recorded only ``done`` could be done; a step of nothing is forgotten.

        Raises:
            DiskError: it could not be written; undoing will name the others.
        """
        kept = {change.path for change in done}
        left = [str(change.path) for change in step.changes if change.path not in kept]
        if left:
            with self._lock, self._appending() as append:
                append({"did": "amend", "number": step.number, "without": left})
                self._take("amend", step, left)

    def undoable(self) -> Step | None:
        """The step to undo next.

        Raises:
            DiskError: the file cannot be read.
        """
        with self._lock:
            self._read()
            return self._done[-1] if self._done else None

    def redoable(self) -> Step | None:
        """The step to do again next.

        Raises:
            DiskError: the file cannot be read.
        """
        with self._lock:
            self._read()
            return self._undone[-1] if self._undone else None

    def undone(self, step: Step) -> None:
        """``step`` was taken back, as far as that went.

        Raises:
            DiskError: it could not be written.
        """
        self._moved("undo", step)

    def redone(self, step: Step) -> None:
        """``step`` was done again, as far as that went.

        Raises:
            DiskError: it could not be written.
        """
        self._moved("redo", step)

    def steps(self) -> list[Step]:
        """All that can be undone or redone, the oldest first.

        Raises:
            DiskError: the file cannot be read.
        """
        with self._lock:
            self._read()
            return [*self._done, *reversed(self._undone)]

    def _moved(self, did: str, step: Step) -> None:
        with self._lock, self._appending() as append:
            append({"did": did, "number": step.number})
            self._take(did, step)

    def _take(self, did: str, step: Step, without: Iterable[str] = ()) -> None:
        """What the stacks are after ``did``; a step that they do not hold changes nothing."""
        self._next = max(self._next, step.number + 1)
        here, there = (self._undone, self._done) if did == "redo" else (self._done, self._undone)
        at = next((at for at in reversed(range(len(here))) if here[at].number == step.number), None)
        if did == "do":
            self._done.append(step)
            self._undone.clear()
        elif at is None:
            return
        elif did == "amend":
            left = set(without)
            here[at] = replace(here[at], changes=tuple(c for c in here[at].changes if str(c.path) not in left))
            if not here[at].changes:
                del here[at]
        else:
            there.append(here.pop(at))

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
                    self._whole += file.write(_sealed_line(record))

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
            found = _parsed(line)
            if found is None:
                self.damaged += 1
            else:
                self._take(*found)

    def _shorten(self) -> None:
        """Write the file anew with its newest steps."""
        assert self.path is not None
        kept: list[bytes] = []
        size = 0
        for step in [*self._undone, *reversed(self._done)]:
            line = _sealed_line(_line_of(step))
            size += len(line)
            if kept and size > MOST_BYTES // 2:
                break
            kept.insert(0, line)
        numbers = {step.number for step in [*self._done, *reversed(self._undone)][-len(kept) :]}
        kept += [
            _sealed_line({"did": "undo", "number": each.number}) for each in self._undone if each.number in numbers
        ]
        atomic_write(self.path, b"".join(kept))
        self._forget()
        self._read(shorten=False)  # a single step may be as long as it is


def _identity(file: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _line_of(step: Step) -> dict[str, Any]:
    return {"did": "do", "number": step.number, "what": step.what, "changes": _packed(step.changes)}


def _sealed_line(record: dict[str, Any]) -> bytes:
    return sealed(json.dumps(record, ensure_ascii=True)).encode() + b"\n"


def _packed(changes: Iterable[Change]) -> list[list[str | None]]:
    return [
        [str(change.path), change.before, change.after, *([change.raw] if change.raw is not None else [])]
        for change in changes
    ]


def _parsed(line: bytes) -> tuple[str, Step, list[str]] | None:
    """What a line says was done; None for anything that is no such line."""
    try:
        record = unsealed(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    did, number, what = record.get("did"), record.get("number"), record.get("what", "")
    changes, without = record.get("changes", []), record.get("without", [])
    if did not in ("do", "undo", "redo", "amend") or type(number) is not int or not isinstance(what, str):
        return None
    if not isinstance(changes, list) or not isinstance(without, list):
        return None
    unpacked = list(_unpacked(changes))
    if None in unpacked or (did == "do") is not bool(unpacked) or not all(isinstance(path, str) for path in without):
        return None
    return did, Step(what, tuple(change for change in unpacked if change is not None), number), without


def _unpacked(changes: list[Any]) -> Iterator[Change | None]:
    for each in changes:
        whole = isinstance(each, list) and len(each) in (3, 4) and isinstance(each[0], str) and "\0" not in each[0]
        if whole and all(text is None or isinstance(text, str) for text in each):
            yield Change(Path(each[0]), *each[1:])
        else:
            yield None


def journal_path(home: Path) -> Path:
    """The journal of the work folder whose state lies in ``home``."""
    return Path(os.path.join(home, "captions-undo.jsonl"))
