"""An ended run leaves no reserve and no temporary file, even where the disk refuses to remove it at first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import engine.training.room as room_module
from engine.events import EventLog, Log
from engine.files import RunFolder
from engine.training.room import SWEEPS, Room, SaveSize


def room_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, code: int = errno.EIO
) -> tuple[Room, EventLog]:
    """A room that took its reserve, on a disk that refuses so many removals."""
    events = EventLog()
    (folder / "config.toml").touch()
    room = Room(RunFolder(folder), events, keep_states=2)
    room.begin(SaveSize(1000, 1000))
    assert [path.name for path in folder.glob(".*.part")] == [".reserve.part"]
    real, left = Path.unlink, [refusals]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if left[0]:
            left[0] -= 1
            if missing_ok and code == errno.ENOENT:
                return
            raise OSError(code, os.strerror(code), str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(room_module, "SWEEP_S", 0.0)
    return room, events


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_a_refused_removal_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    room, events = room_in(tmp_path, monkeypatch, SWEEPS - 1, code)
    room.close()
    assert list(tmp_path.glob(".*.part")) == []
    assert [e.event.text for e in events.since(0) if isinstance(e.event, Log) and "removed" in e.event.text] == []


def test_what_a_refused_write_left_anywhere_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, _ = room_in(tmp_path, monkeypatch, 0)
    places = [tmp_path, *(getattr(RunFolder(tmp_path), name) for name in ("samples", "records"))]
    for place in places:
        place.mkdir(exist_ok=True)
        (place / ".0123456789ab.part").touch()
    room.close()
    assert list(tmp_path.rglob("*.part")) == []


def test_what_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, events = room_in(tmp_path, monkeypatch, 10_000)
    room.close()
    [told] = [e.event for e in events.since(0) if isinstance(e.event, Log) and "removed" in e.event.text]
    assert told.level == "warning" and str(tmp_path) in told.text and "by hand" in told.text
