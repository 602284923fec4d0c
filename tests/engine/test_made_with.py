"""What a run was made with, as a report tells it: from its newest record, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

from engine.run import made_with
from engine.training.record import Record, save_record


def test_the_newest_whole_record_tells_it(tmp_path: Path) -> None:
    assert made_with(tmp_path) == {}
    records = tmp_path / "records"
    records.mkdir()
    for number, device in enumerate(("RTX 3060", "RTX 4090")):
        save_record(records, Record({}, {}, {}, {"device": device, "torch": "2.11"}))
        for path in records.iterdir():
            if device.encode() in path.read_bytes():
                os.utime(path, (1000 + number, 1000 + number))
    assert made_with(tmp_path) == {"device": "RTX 4090", "torch": "2.11"}
    newest = max(records.iterdir(), key=lambda path: path.stat().st_mtime)
    newest.write_bytes(newest.read_bytes().replace(b"4090", b"4080"))
    assert made_with(tmp_path) == {}, "a damaged one is not believed"


def test_a_pipe_among_the_records_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    os.mkfifo(tmp_path / "records" / "0123456789abcdef.json")
    assert made_with(tmp_path) == {}
