"""What readers show of a run that was killed and resumed: the figures of one that never was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import shown

from engine.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    EventLog,
    Log,
    RunDone,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
    StopPlanned,
)
from engine.training.control import planned_and_kept

EPOCHS, STEPS = 3, 4
TOTAL = EPOCHS * STEPS


def started(resumed: int) -> RunStarted:
    return RunStarted("cat", "/runs/cat", "flux1", "dev", EPOCHS, TOTAL, 5, resumed)


def events_of(step: int) -> list[Event]:
    """All that a step tells: itself, the end of its epoch, samples, a LoRA file. Deterministic, as the engine is."""
    draw = random.Random(step)
    epoch = 1 + (step - 1) // STEPS
    told: list[Event] = [StepDone(step, epoch, draw.random(), 1e-3 / step, draw.random(), 0.1, 0.0, 0.1, 0.0)]
    if step % STEPS == 0:
        told.append(EpochDone(epoch, step, draw.random()))
    if step % 3 == 0:
        told += [SampleSaved(f"s/step{step:06d}-{n:02d}.png", step, epoch, n, "a cat", n) for n in range(2)]
    if step % STEPS == 0:
        told.append(CheckpointSaved(f"/runs/cat/cat-e{epoch:04d}.safetensors", step, epoch, "epoch", 1000))
    return told


def tell(path: Path, events: Sequence[Event]) -> None:
    log = EventLog(path)
    for event in events:
        log.append(event)
    log.close()


def session(after: int, until: int) -> list[Event]:
    """What a run tells that begins after a step and goes on until another."""
    said: list[Event] = [StateChanged("preparing"), started(after), StateChanged("training")]
    for step in range(after + 1, until + 1):
        said += events_of(step)
    return said


ENDING = (RunDone("finished", TOTAL, EPOCHS, "", 1.0), StateChanged("finished"))

KILLS = st.lists(
    st.tuples(
        st.integers(0, TOTAL),  # the last step told before the kill
        st.integers(0, 8),  # steps by which the newest whole state is older
        st.integers(0, 400),  # bytes torn off what that step told
        st.booleans(),  # whether garbage of a power cut follows
    ),
    max_size=5,
)


@settings(max_examples=30, deadline=None)
@given(KILLS)
def test_any_kill_schedule_folds_to_the_uninterrupted_run(kills: list[tuple[int, int, int, bool]]) -> None:
    check(kills)


@pytest.mark.crash
@settings(max_examples=3000, deadline=None)
@given(KILLS)
def test_thousands_of_kill_schedules_fold_to_the_uninterrupted_run(kills: list[tuple[int, int, int, bool]]) -> None:
    check(kills)


def check(kills: list[tuple[int, int, int, bool]]) -> None:
    with TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole.jsonl", Path(name) / "killed.jsonl"
        tell(whole, [*session(0, TOTAL), *ENDING])
        state = 0
        for last, older, torn, garbage in kills:
            last = max(last, state)
            told = session(state, last)
            before = session(state, last - 1) if last > state else told
            tell(killed, told)
            data = killed.read_bytes()
            # Only what the last step told can be torn: a state is written when all before it is on the disk.
            least = len(data) - sum(len(line) for line in data.splitlines(True)[len(before) - len(told) :])
            cut = max(least, len(data) - torn) if last > state else len(data)
            killed.write_bytes(data[:cut] + (b"\0" * 70_000 if garbage else b""))
            state = max(state, min(last - 1, last - older)) if last > state else state
            seen = shown(killed)
            assert seen["columns"][0] == list(range(1, len(seen["columns"][0]) + 1))
        tell(killed, [*session(state, TOTAL), *ENDING])
        assert shown(killed) == shown(whole)
        numbers = [int(line.split(b'"seq": ')[1].split(b",")[0]) for line in lines(killed)]
        assert numbers == sorted(set(numbers))


def lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if line.startswith(b"{") and line.endswith(b"}")]


@pytest.mark.parametrize("after", range(TOTAL + 1))
def test_a_resumed_run_stands_where_its_state_does_before_its_first_step(after: int, tmp_path: Path) -> None:
    """A run resumed and stopped at once shows the step and epoch it stands at, not those it had come to before."""
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    tell(resumed, [*session(0, TOTAL), *session(after, after)])
    tell(whole, session(0, after))
    assert shown(resumed)["state"] == shown(whole)["state"]
    assert shown(resumed)["epochs"] == shown(whole)["epochs"]


def told_by(tmp_path: Path, *events: Event) -> int:
    path = tmp_path / "events.jsonl"
    path.unlink(missing_ok=True)
    tell(path, events)
    return planned_and_kept(path)[0]


def test_a_planned_stop_is_in_force_until_it_was_carried_out_or_taken_back(tmp_path: Path) -> None:
    assert planned_and_kept(tmp_path / "none") == (0, ())
    first, plan = session(0, 6), StopPlanned(2)
    over = [*first, plan, *session(6, 8)[3:]]
    assert told_by(tmp_path, *first) == 0
    assert told_by(tmp_path, *first, plan, Log("info", '"type": "StopPlanned"')) == 2
    assert told_by(tmp_path, *first, plan, StopPlanned(0)) == 0
    # Stopped by another wish before that epoch was over: the plan stands.
    assert told_by(tmp_path, *first, plan, RunDone("stopped", 6, 2, "", 1.0), *session(6, 7)) == 2
    assert told_by(tmp_path, *over, RunDone("stopped", 8, 2, "", 1.0)) == 0
    # Killed between the end of the epoch and that of the run: to be carried out yet.
    assert told_by(tmp_path, *over) == 2
    # The epoch was over once, but those steps were lost and are done again.
    assert told_by(tmp_path, *over, *session(4, 5), RunDone("stopped", 5, 2, "", 1.0)) == 2
