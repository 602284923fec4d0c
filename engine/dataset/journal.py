"""What was done to captions, so that it can be taken back and done again, also after a restart.

Comes in: steps, each with the text of every caption before and after it. Goes out: the step to undo or redo next.
Nothing here touches a caption: :mod:`engine.dataset.applying` does. A step's line stands on the disk before the first
of its captions is written, so whatever a kill leaves can be undone. A step that is missing, its line being damaged,
makes nothing worse: undoing refuses every caption that does not hold what the step left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.dataset.step_file import StepFile, sealed_line


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


class Journal(StepFile):
    """The steps of one work folder. Any thread, any process."""

    def _clear(self) -> None:
        self._done: list[Step] = []
        self._undone: list[Step] = []
        self._next = 1

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

    def _take_record(self, record: Any) -> bool:
        found = _parsed(record)
        if found is not None:
            self._take(*found)
        return found is not None

    def _newest(self) -> Iterator[bytes]:
        return (sealed_line(_line_of(step)) for step in [*self._undone, *reversed(self._done)])

    def _tail(self, steps: int) -> bytes:
        undone = self._undone[:steps]
        return b"".join(sealed_line({"did": "undo", "number": each.number}) for each in undone)


def _line_of(step: Step) -> dict[str, Any]:
    return {"did": "do", "number": step.number, "what": step.what, "changes": _packed(step.changes)}


def _packed(changes: Iterable[Change]) -> list[list[str | None]]:
    return [
        [str(change.path), change.before, change.after, *([change.raw] if change.raw is not None else [])]
        for change in changes
    ]


def _parsed(record: Any) -> tuple[str, Step, list[str]] | None:
    """What a line says was done; None for anything that is no such line."""
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
