"""What became of one caption's text, step by step: undo and redo without limit, also after a restart.

A :class:`Past` holds the text as it is and every edit that led to it; typing without a rest is one step. Nothing here
knows a file of captions: who edits hands in each new text. What is told to the disk is one sealed JSON line a step in
a file of the workstation's own, beside nothing of the user's. Damage costs the steps behind it, never a text: a past
that does not end in the text that stands gets one more step that leads there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.dataset.regular import read_limited
from engine.errors import DatasetError, DiskError
from engine.files import atomic_write, disk_error, flush, opened_here
from engine.sealed import sealed, unsealed

BURST_S = 2.0
"""A key that comes later than this after the one before begins a new step."""
BURST_CHARACTERS = 100
"""A step of typing is no longer."""
MAX_BYTES = 16 * 2**20
"""A longer file is begun anew: some hundred thousand steps of one caption."""


@dataclass(frozen=True)
class Edit:
    """``removed`` at ``at`` became ``inserted``."""

    at: int
    removed: str
    inserted: str

    def done(self, text: str) -> str:
        """``text`` with the edit."""
        return text[: self.at] + self.inserted + text[self.at + len(self.removed) :]

    def undone(self, text: str) -> str:
        """``text`` as it was before the edit."""
        return text[: self.at] + self.removed + text[self.at + len(self.inserted) :]


def difference(before: str, after: str) -> Edit:
    """The shortest single edit that makes ``after`` of ``before``."""
    start = _shared(before, after, min(len(before), len(after)))
    end = _shared(before[start:][::-1], after[start:][::-1], min(len(before), len(after)) - start)
    return Edit(start, before[start : len(before) - end], after[start : len(after) - end])


def _shared(one: str, other: str, most: int) -> int:
    """How many characters both begin with, found by halving: slices are compared quickly."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            most = middle - 1
    return low


class Past:
    """The steps of one text, and how many of them are done.

    Args:
        text: where it begins.

    Attributes:
        text: as it is now.
        spoilt: what the disk has is not this past: all of it must be written again.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.spoilt = True
        self._base = text
        self._edits: list[Edit] = []
        self._done = 0
        self._lines: list[dict[str, Any]] = []
        self._told = 0
        self._open = False
        self._last_s = 0.0

    def __len__(self) -> int:
        """How many steps can be undone."""
        return self._done

    def take(self, text: str, now_s: float = 0.0, typed: bool = False) -> None:
        """The text is another one now.

        Args:
            text: the new one.
            now_s: a clock's time, for telling bursts of typing.
            typed: by a key, so that it may belong to the step before.
        """
        if text == self.text:
            return
        edit = difference(self.text, text)
        joined = self._joined(edit) if typed and now_s - self._last_s <= BURST_S else None
        if joined is not None:
            self._edits[-1] = joined
        else:
            self.close()
            del self._edits[self._done :]
            self._edits.append(edit)
            self._done += 1
        self.text, self._open, self._last_s = text, True, now_s
        if not typed:
            self.close()

    def close(self) -> None:
        """The next key begins a new step."""
        if self._open:
            self._open = False
            self._lines.append(_line_of(self._edits[self._done - 1]))

    def undo(self) -> Edit | None:
        """Take one step back; returns it, None where there is none."""
        self.close()
        if not self._done:
            return None
        self._done -= 1
        edit = self._edits[self._done]
        self.text = edit.undone(self.text)
        self._lines.append({"to": self._done})
        return edit

    def redo(self) -> Edit | None:
        """Do an undone step again; returns it, None where there is none."""
        self.close()
        if self._done == len(self._edits):
            return None
        edit = self._edits[self._done]
        self._done += 1
        self.text = edit.done(self.text)
        self._lines.append({"to": self._done})
        return edit

    def news(self) -> list[dict[str, Any]]:
        """What the disk was not told yet; from then on it counts as told. All of it where the file is spoilt."""
        self.close()
        lines, self._lines = self._lines, []
        if self.spoilt and not self._edits:
            return []
        if self.spoilt:
            lines = [{"text": self._base}, *map(_line_of, self._edits), {"to": self._done}]
            self._told, self.spoilt = 0, False
        first, self._told = self._told, self._told + len(lines)
        return [{"n": number, **line} for number, line in enumerate(lines, first)]

    def _joined(self, edit: Edit) -> Edit | None:
        """The last step and ``edit`` as one, where both are the same typing or the same deleting."""
        if not self._open or "\n" in edit.inserted + edit.removed or len(edit.inserted) + len(edit.removed) != 1:
            return None
        last = self._edits[-1]
        if len(last.inserted) + len(last.removed) >= BURST_CHARACTERS:
            return None
        if edit.inserted and not last.removed and edit.at == last.at + len(last.inserted):
            return Edit(last.at, "", last.inserted + edit.inserted)
        if edit.removed and not last.inserted and edit.at + 1 == last.at:
            return Edit(edit.at, edit.removed + last.removed, "")
        if edit.removed and not last.inserted and edit.at == last.at:
            return Edit(edit.at, last.removed + edit.removed, "")
        return None

    def replay(self, records: Iterable[Any]) -> bool:
        """Do what the lines of a file say, the first of them apart; False where one makes no sense: it ends there."""
        self._told = 1
        for number, record in enumerate(records, 1):
            if not isinstance(record, dict) or record.get("n") != number:  # one is missing, or there twice
                return False
            self._told += 1
            edit, place = _edit_of(record), record.get("to")
            if edit is not None and self.text[edit.at : edit.at + len(edit.removed)] == edit.removed:
                del self._edits[self._done :]
                self._edits.append(edit)
                self._done += 1
                self.text = edit.done(self.text)
            elif edit is None and type(place) is int and 0 <= place <= len(self._edits):
                while self._done > place:
                    self._done -= 1
                    self.text = self._edits[self._done].undone(self.text)
                while self._done < place:
                    self.text = self._edits[self._done].done(self.text)
                    self._done += 1
            else:
                return False
        return True


def past_path(folder: Path, caption: Path) -> Path:
    """Where the past of ``caption`` lies in ``folder``."""
    name = os.fsencode(os.path.abspath(caption))
    return folder / f"{hashlib.sha256(name).hexdigest()[:32]}.jsonl"


def open_past(path: Path | None, text: str, began: str) -> Past:
    """The past that ``path`` holds, led to ``text``; one that begins with ``began`` where none can be read."""
    past = _read(path) if path is not None and os.path.lexists(path) else None
    past = Past(began) if past is None else past
    past.take(text)
    return past


def write_news(path: Path, lines: list[dict[str, Any]]) -> None:
    """Tell the disk what :meth:`Past.news` gave; lines that begin a past take the place of what stands there.

    Raises:
        DiskError: it could not be written; the past is spoilt then, and whoever holds it must say so.
    """
    if not lines:
        return
    text = "".join(sealed(json.dumps(line, ensure_ascii=True)) + "\n" for line in lines)
    if "text" in lines[0]:
        atomic_write(path, text)
        return
    try:
        # Not made anew where it is gone: a past without its beginning is none.
        with open(path, "r+b", opener=opened_here) as file:
            file.seek(0, os.SEEK_END)
            file.write(text.encode())
        flush(path)
    except OSError as err:
        raise disk_error(err, path) from err


def _read(path: Path) -> Past | None:
    try:
        data = read_limited(path, MAX_BYTES)
    except (DatasetError, DiskError):
        return None
    records: list[Any] = []
    whole = len(data) <= MAX_BYTES and data.endswith(b"\n")
    for line in data.splitlines():
        try:
            records.append(unsealed(line))
        except ValueError:
            whole = False
            break
    text = records[0].get("text") if records and isinstance(records[0], dict) else None
    if not isinstance(text, str) or records[0].get("n") != 0:
        return None
    past = Past(text)
    past.spoilt = not (past.replay(records[1:]) and whole)
    return past


def _line_of(edit: Edit) -> dict[str, Any]:
    return {"at": edit.at, "cut": edit.removed, "put": edit.inserted}


def _edit_of(record: dict[str, Any]) -> Edit | None:
    at, removed, inserted = record.get("at"), record.get("cut"), record.get("put")
    if type(at) is not int or at < 0 or not isinstance(removed, str) or not isinstance(inserted, str):
        return None
    return Edit(at, removed, inserted)
