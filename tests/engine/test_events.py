"""The event log: numbering, the ring, the file and its replay."""

import errno
import json
import threading
from pathlib import Path

import pytest

from engine import line_file
from engine.errors import DiskFull
from engine.events import (
    EVENT_TYPES,
    Entry,
    EpochDone,
    EventLog,
    Log,
    StateChanged,
    StepDone,
    entry_from_json,
    replay,
)
from engine.line_file import LineFile


def step(number: int) -> StepDone:
    return StepDone(number, 1, 0.5, 1e-4, 1.0, 0.1, 0.01, 0.08, 0.01)


def test_since_gives_only_newer_entries_in_order():
    log = EventLog()
    for number in range(1, 6):
        log.append(step(number))
    assert [entry.event.step for entry in log.since(2)] == [3, 4, 5]
    assert log.since(5) == []
    assert log.seq == 5


def test_ring_forgets_the_oldest_but_the_file_keeps_all(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", ring_size=3)
    for number in range(1, 11):
        log.append(step(number))
    log.close()
    assert [entry.event.step for entry in log.since(0)] == [8, 9, 10]
    assert [entry.event.step for entry in replay(tmp_path / "events.jsonl")] == list(range(1, 11))


def test_events_before_the_file_was_opened_are_written_and_numbered_on(tmp_path):
    path = tmp_path / "events.jsonl"
    first = EventLog(path)
    first.append(Log("info", "one"))
    first.close()
    second = EventLog()
    second.append(StateChanged("preparing"))
    second.open_file(path)
    second.append(Log("info", "three"))
    second.close()
    assert [entry.seq for entry in replay(path)] == [1, 2, 3]
    assert [entry.seq for entry in second.since(0)] == [2, 3]


def test_a_torn_last_line_is_ended_and_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append(Log("info", "whole"))
    log.close()
    with open(path, "a") as file:
        file.write('{"seq": 2, "time": 1.0, "type": "Lo')
    again = EventLog(path)
    again.append(Log("info", "after"))
    again.close()
    assert [entry.event.text for entry in replay(path)] == ["whole", "after"]


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_every_kind_of_event_survives_json(kind):
    values = {"int": 3, "float": 0.25, "str": "a\x1b[2Jb\u2028", "tuple[str, ...]": ("\udcff", "b")}
    values |= {"tuple[int, ...]": (1, 2**40), "tuple[float, ...]": (0.5, -1.0), "float | None": None, "bool": True}
    values["tuple[tuple[str, float], ...]"] = (("single", 0.5), ("b", 2.0))
    cls = EVENT_TYPES[kind]
    event = cls(**{name: values[str(typ)] for name, typ in cls.__annotations__.items()})
    entry = Entry(7, 12.5, event)
    line = entry.to_json()
    assert "\n" not in line and "\x1b" not in line
    assert entry_from_json(line) == entry


def test_unknown_fields_and_foreign_lines(tmp_path):
    record = json.loads(Entry(1, 0.0, EpochDone(1, 10, 0.5)).to_json()) | {"newer": 1}
    assert entry_from_json(json.dumps(record)).event == EpochDone(1, 10, 0.5)
    path = tmp_path / "events.jsonl"
    path.write_text('garbage\n[1]\n{"type": "Nope"}\n{"type": "Log", "seq": 1, "time": 0}\n')
    assert list(replay(path)) == []


def test_many_threads_number_without_gaps():
    log = EventLog(ring_size=10_000)
    threads = [threading.Thread(target=lambda: [log.append(step(1)) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.seq for entry in log.since(0)] == list(range(1, 2001))


def test_a_full_disk_is_remembered_and_the_ring_goes_on():
    log = EventLog()
    log._file = LineFile(Path("/dev/full"))
    log.append(Log("info", "x"))
    assert log.write_error is not None
    with pytest.raises(DiskFull, match="/dev/full"):
        log.settle()
    assert log.since(0)[0].event == Log("info", "x")


def test_what_a_full_disk_refused_is_written_when_there_is_room(tmp_path):
    """The disk takes part of a line, then nothing, then all: the file is as if it had always taken all."""
    log = EventLog(tmp_path / "events.jsonl")
    real, room = log._file._file, [30]

    class Disk:
        def write(self, data):
            if room and room[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = real.write(data[: room[0]] if room else data)
            room[:] = [room[0] - taken] if room else []
            return taken

        def close(self):
            real.close()

    log._file._file = Disk()
    for number in range(1, 4):
        log.append(step(number))
    assert log.write_error is not None and list(replay(tmp_path / "events.jsonl")) == []
    room.clear()
    log.append(step(4))
    assert log.write_error is None
    log.settle()
    log.close()
    assert [entry.event.step for entry in replay(tmp_path / "events.jsonl")] == [1, 2, 3, 4]


def test_no_more_is_kept_than_memory_allows_and_what_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(line_file, "MOST_KEPT", 1000)
    log = EventLog()
    log._file = LineFile(Path("/dev/full"))
    for number in range(100):
        log.append(step(number))
    log._file._file = open(tmp_path / "events.jsonl", "ab", buffering=0)  # noqa: SIM115
    log.settle()
    log.close()
    entries = list(replay(tmp_path / "events.jsonl"))
    assert [entry.seq for entry in entries][:-1] == list(range(1, len(entries)))
    assert entries[-1].event.text.startswith(f"{100 - len(entries) + 1} events are not in")
