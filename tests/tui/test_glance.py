"""Lists of runs show what the whole view of a run shows, read in a fraction of the time."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from test_folded_again import ENDING, TOTAL, session, started, tell

from engine.events import (
    Event,
    EventLog,
    Log,
    LossSpiked,
    MemorySampled,
    Progress,
    RunFailed,
    StateChanged,
    StepBroken,
    StepDone,
    entry_from_json,
)
from engine.sealed import sealed
from tui.bridge import view_of
from tui.glance import glance
from tui.run_list import RunSummary, read_view, summary, summed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder."""
    (tmp_path / "cat").mkdir()
    return tmp_path / "cat"


def both(folder: Path) -> RunSummary:
    """The summary from a glance, which is that of the whole view."""
    whole, seen = view_of(folder / "events.jsonl"), glance(folder / "events.jsonl")
    assert summary(folder) == summed(folder, read_view(folder))
    assert (seen.seq, seen.step, seen.epoch, seen.state, seen.seconds) == (
        whole.seq, whole.step, whole.epoch, whole.state, whole.seconds,
    )  # fmt: skip
    assert list(seen.courses.step) == list(whole.courses.step)
    assert str(list(seen.courses.loss)) == str(list(whole.courses.loss))  # NaN is not itself
    assert seen.log == whole.log and seen.epoch_marks == whole.epoch_marks
    return summary(folder)


def step(number: int, loss: float) -> StepDone:
    return StepDone(number, 1 + (number - 1) // 4, loss, 1e-3, 0.1, 0.1, 0.0, 0.1, 0.0)


def test_runs_of_every_course_are_summed_up_alike(folder: Path) -> None:
    path = folder / "events.jsonl"
    for seed in range(60):
        draw = random.Random(seed)
        path.unlink(missing_ok=True)
        clock = iter([1e9 + draw.choice((0.001, 0.5, 59.0, 61.0)) * number for number in range(10_000)])
        log, at = EventLog(path, clock=lambda clock=clock: next(clock)), 0  # type: ignore[misc]
        for _ in range(draw.randint(1, 4)):
            until = draw.randint(at, TOTAL)
            for event in session(at, until):
                log.append(event)
                if draw.random() < 0.3:
                    log.append(odd(draw, until))
            at = draw.randint(0, until)  # a killed run goes on from an earlier state
        if draw.random() < 0.5:
            for event in (*session(at, TOTAL), *ENDING):
                log.append(event)
        log.close()
        damage(path, draw)
        both(folder)


def odd(draw: random.Random, number: int) -> Event:
    """Something that a run may tell between its steps."""
    return draw.choice(
        (
            MemorySampled(draw.random(), 8.0, 0.5), Progress("sample", 1, 2, '"type": "StepDone", "step": 9'),
            Log("info", '{"seq": 1, "time": 2.0, "type": "StepDone", "step": 3, "epoch": 1, "loss": 0.5, '),
            StepBroken(number, 1, "skipped", "left out", math.nan, math.inf, "a.png"), step(number, math.nan),
            StepBroken(number, 1, "restored", "back", back_to=number // 2), step(number, math.inf),
            step(number, draw.choice((1e-12, 1e300, -3.0, 7.0))), StateChanged(draw.choice(("paused", "training"))),
            LossSpiked(number, 4.0, 0.4, 9.5, ("a",), 8, "jumped"), RunFailed("full", "the disk", "", ""),
            started(number // 2),
        )
    )  # fmt: skip


def damage(path: Path, draw: random.Random) -> None:
    """Change a bit, take the checksums off, or tear the end, each in some of the cases."""
    data = bytearray(path.read_bytes())
    kind = draw.choice(("whole", "bit", "unsealed", "torn", "strange"))
    if kind == "bit":
        for _ in range(5):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == "unsealed":
        lines = [line.split(b', "crc32": ')[0] + b"}" for line in data.splitlines() if draw.random() < 0.9]
        data = bytearray(b"\n".join(lines) + b"\n")
    elif kind == "torn":
        del data[draw.randrange(len(data) // 2, len(data)) :]
    elif kind == "strange":
        data += b'{"seq": 99999, "time": 1e9, "type": "StepDone"}\n' + b"\xff" * 100 + b"\n\n"
    path.write_bytes(bytes(data))


def test_what_is_sealed_but_no_event_counts_no_more_than_elsewhere(folder: Path) -> None:
    tell(folder / "events.jsonl", session(0, 6))
    strange = [
        {"seq": 10**17, "time": 1e9, "type": "StepDone", "step": 7, "epoch": 1, "loss": 0.5},
        {"seq": 50, "time": 1e9, "type": "StepDone", "step": 10**16, "epoch": 1, "loss": 0.5, "lr": 0.1},
        {"seq": 51, "time": 1e9, "type": "StepDone", "step": "7", "epoch": 1, "loss": 0.5, "lr": 0.1},
        {"seq": 52, "time": 1e9, "type": "Measured", "step": 7},
    ]
    with open(folder / "events.jsonl", "a", encoding="utf-8") as file:
        for record in strange:
            file.write(sealed(json.dumps(record)) + "\n")
    assert both(folder).step == 6


def test_steps_and_samples_are_not_read_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "events.jsonl"
    log = EventLog(path)
    for event in session(0, 0):
        log.append(event)
    for number in range(1, 1001):
        log.append(step(number, 1 / number))
        log.append(MemorySampled(1.0, 8.0, 0.5))
    log.close()
    assert both(folder).step == 1000
    whole: list[str] = []
    monkeypatch.setattr("tui.glance.entry_from_json", lambda line: whole.append(line) or entry_from_json(line))
    glance(path)
    assert len(whole) == 3 and len(path.read_bytes().splitlines()) == 2003
