"""What was mended, so that it can be taken back also after a restart.

Comes in: each change of files and of notes just before it is made. Goes out: the step to take back next. Nothing here
touches a file of the dataset: :mod:`engine.dataset.mend` does. A change stands on the disk before it is made, so a
kill in the middle leaves what can be taken back.

The file may have come with a folder from elsewhere. So a line whose paths do not lie together, as those of a mending
do, is passed over like a damaged one; whoever takes a step back asks for its paths first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.dataset.mend import ORIGINALS, Mended
from engine.dataset.sidecar import PictureNotes
from engine.dataset.step_file import StepFile, sealed_line
from engine.text import safe_text

NOTED = {"exclude", "crop", "repeats", "stars"}
"""Notes that a step may have changed."""


@dataclass(frozen=True)
class MendStep:
    """What one undo takes back: files that were changed, and notes as they were before."""

    number: int
    files: tuple[Mended, ...] = ()
    notes: tuple[tuple[Path, Mapping[str, object]], ...] = ()

    @property
    def what(self) -> str:
        """What was done, in words that are safe to show."""
        if len(self.files) == 1:
            return self.files[0].what
        if self.files:
            return f"{len(self.files)} files mended"
        names = ", ".join(safe_text(path.name, 60) for path, _ in self.notes[:2])
        shown = names if len(self.notes) < 3 else f"{len(self.notes)} pictures"
        if "crop" in self.notes[0][1]:
            return f"{shown} cropped"
        back = any(before.get("exclude") for _, before in self.notes)
        return f"{shown} {'taken back in' if back else 'left out'}"

    @property
    def paths(self) -> Iterator[Path]:
        """All files that taking it back may touch, and the pictures of its notes."""
        for mended in self.files:
            yield from (path for path, _ in mended.made)
            yield from (path for moved in mended.moved for path in moved[:2])
        yield from (path for path, _ in self.notes)


class MendJournal(StepFile):
    """The mendings of one work folder, the newest last. Any thread, any process."""

    def _clear(self) -> None:
        self._steps: list[MendStep] = []
        self._next = 1

    def file(self, number: int, mended: Mended) -> int:
        """Files are about to be changed, as a part of step ``number``; 0 begins one. Returns the step's number.

        Raises:
            DiskError: it could not be written, or the file not read; nothing is recorded.
        """
        return self._add(number, _file_record(mended))

    def note(self, number: int, picture: Path, before: Mapping[str, object]) -> int:
        """As :meth:`file`, for notes that were ``before`` before."""
        return self._add(number, _note_record(picture, before))

    def left(self, number: int, files: int, notes: int) -> None:
        """Of step ``number`` only so many files and notes are still to be taken back; a step of none is over.

        Raises:
            DiskError: it could not be written.
        """
        record = {"did": "left", "number": number, "files": files, "notes": notes}
        with self._lock, self._appending() as append:
            append(record)
            self._take_record(record)

    def undoable(self) -> MendStep | None:
        """The step to take back next.

        Raises:
            DiskError: the file cannot be read.
        """
        with self._lock:
            self._read()
            return self._steps[-1] if self._steps else None

    def step(self, number: int) -> MendStep | None:
        """What is left of a step; None where nothing is.

        Raises:
            DiskError: the file cannot be read.
        """
        with self._lock:
            self._read()
            return next((step for step in self._steps if step.number == number), None)

    def _add(self, number: int, record: dict[str, Any]) -> int:
        with self._lock, self._appending() as append:
            number = number or self._next
            append({**record, "number": number})
            self._take_record({**record, "number": number})
            return number

    def _take_record(self, record: Any) -> bool:
        number = record.get("number") if isinstance(record, dict) else None
        if type(number) is not int or number < 1:
            return False
        at = next((at for at in reversed(range(len(self._steps))) if self._steps[at].number == number), None)
        step = MendStep(number) if at is None else self._steps[at]
        changed = _changed(step, record)
        if changed is None:
            return False
        self._next = max(self._next, number + 1)
        if at is not None:
            self._steps[at : at + 1] = [changed] if changed.files or changed.notes else []
        elif changed.files or changed.notes:
            self._steps.append(changed)
        return True

    def _newest(self) -> Iterator[bytes]:
        for step in reversed(self._steps):
            records = [_file_record(each) for each in step.files] + [_note_record(*each) for each in step.notes]
            yield b"".join(sealed_line({**record, "number": step.number}) for record in records)


def _file_record(mended: Mended) -> dict[str, Any]:
    made = [[os.path.abspath(path), digest] for path, digest in mended.made]
    moved = [[os.path.abspath(old), os.path.abspath(now), digest] for old, now, digest in mended.moved]
    return {"did": "file", "what": mended.what, "made": made, "moved": moved}


def _note_record(picture: Path, before: Mapping[str, object]) -> dict[str, Any]:
    return {"did": "note", "picture": os.path.abspath(picture), "before": dict(before)}


def _changed(step: MendStep, record: dict[str, Any]) -> MendStep | None:
    """``step`` after what a line says; None for what is no line of ours."""
    match record:
        case {"did": "left", "files": int(files), "notes": int(notes)} if files >= 0 and notes >= 0:
            return replace(step, files=step.files[:files], notes=step.notes[:notes])
        case {"did": "note", "picture": str(picture), "before": dict(before)} if before and before.keys() <= NOTED:
            whole = _whole(picture) and _valid(before)
            return replace(step, notes=(*step.notes, (Path(picture), before))) if whole else None
        case {"did": "file", "what": str(what), "made": list(made), "moved": list(moved)} if made or moved:
            if all(_texts(each, 2) for each in made) and all(_texts(each, 3) for each in moved):
                mended = Mended(
                    safe_text(what, 400),
                    tuple((Path(path), digest) for path, digest in made),
                    tuple((Path(old), Path(now), digest) for old, now, digest in moved),
                )
                return replace(step, files=(*step.files, mended)) if _together(mended) else None
    return None


def _texts(value: Any, count: int) -> bool:
    """Whether it is a list of so many texts, all but the last of which are paths."""
    whole = isinstance(value, list) and len(value) == count and all(isinstance(each, str) for each in value)
    return whole and all(map(_whole, value[:-1]))


def _valid(notes: dict[str, Any]) -> bool:
    try:
        PictureNotes.model_validate(notes)
    except ValueError:
        return False
    return True


def _whole(path: str) -> bool:
    """A path that says where it leads: from the root, without a step back."""
    return os.path.isabs(path) and "\0" not in path and path == os.path.normpath(path)


def _together(mended: Mended) -> bool:
    """Whether all files lie in one folder, but for originals, which lie in their own below it."""
    first = mended.made[0][0] if mended.made else mended.moved[0][0]
    folder = first.parent
    beside = {path.parent for path, _ in mended.made} | {old.parent for old, _, _ in mended.moved}
    return beside == {folder} and all(now.parent in (folder, folder / ORIGINALS) for _, now, _ in mended.moved)


def mend_journal_path(home: Path) -> Path:
    """The journal of the work folder whose state lies in ``home``."""
    return Path(os.path.join(home, "mend-undo.jsonl"))
