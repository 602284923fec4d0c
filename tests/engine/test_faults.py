"""Steps that are not finite in whole runs: once again, then without them, or an end with nothing broken saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, merge, submit_after, told
from safetensors.torch import load_file
from scarce_runs import make_place, small

from engine.commands import StopNow
from engine.config import RunConfig
from engine.events import EpochDone, RunFailed, RunStarted, StepBroken, StepDone
from engine.run import Run, open_run
from engine.training import step as step_module
from engine.training.checkpoint import load_newest
from engine.training.gate import Gate
from engine.training.kit import Kit
from engine.training.stopwatch import Stopwatch

NAN = float("nan")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a smallest model and, once a run was here, caches."""
    return make_place(tmp_path_factory.mktemp("faults"))


def faulty(place: Path, **changes: Any) -> RunConfig:
    """Twelve steps of two micro-batches, four an epoch."""
    shape = {
        "dataset": {"folders": [{"path": place / "data", "repeats": 2}]},
        "training": {"epochs": 3, "batch_size": 1, "accumulation": 2},
        "saving": {"every_epochs": 1},
    }
    return small(place, **merge(shape, changes))


def poison(monkeypatch: pytest.MonkeyPatch, broken: Callable[[int, int], bool]) -> list[int]:
    """Break the loss of a step's first micro-batch where ``broken(step, attempt)``; returns the steps begun."""
    attempts: list[int] = []
    step, learn = step_module.Stepper.step, Kit.learn
    first = [False]

    def stepping(self: Any, turn: Any, look: Any = None) -> Any:
        attempts.append(turn.step)
        first[0] = True
        return step(self, turn, look)

    def learning(self: Any, inputs: Any, share: int, watch: Any) -> Any:
        loss, each = learn(self, inputs, share, watch)
        was, first[0] = first[0], False
        return (loss * NAN if was and broken(attempts[-1], attempts.count(attempts[-1])) else loss), each

    monkeypatch.setattr(step_module.Stepper, "step", stepping)
    monkeypatch.setattr(Kit, "learn", learning)
    return attempts


def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU be behind the host as a GPU is: the gate decides on the device, numbers are read two steps late."""
    begin, step = step_module.Stepper.__init__, step_module.Stepper.step

    def beginning(self: Any, config: Any, kit: Any) -> None:
        begin(self, config, kit)
        self.gate = Gate(kit.optimizer, late=True)
        self._undo.gate = self.gate

    def stepping(self: Any, turn: Any, look: Any = None) -> Any:
        return replace(step(self, turn, look), late=True)

    monkeypatch.setattr(step_module.Stepper, "__init__", beginning)
    monkeypatch.setattr(step_module.Stepper, "step", stepping)
    monkeypatch.setattr(Stopwatch, "ready", lambda self: False)


def lora_of(run: Run) -> dict[str, torch.Tensor]:
    assert run.folder is not None and run.exit_reason == "finished", told(run, RunFailed)
    return load_file(run.folder.root / f"{run.folder.name}.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def lines(run: Run) -> list[dict[str, Any]]:
    assert run.folder is not None
    return [json.loads(line) for line in run.folder.faults.read_text().splitlines()]


def actions(run: Run) -> list[tuple[int, str]]:
    return [(event.step, event.action) for event in told(run, StepBroken)]


@pytest.mark.parametrize("late", [False, True], ids=["host", "late"])
def test_a_fault_that_comes_once_leaves_no_trace(place, monkeypatch, late):
    wanted = lora_of(finish(Run(faulty(place))))
    if late:
        behind(monkeypatch)
    attempts = poison(monkeypatch, lambda step, attempt: step == 6 and attempt == 1)
    run = finish(Run(faulty(place)))
    assert same(lora_of(run), wanted)
    assert actions(run) == [(6, "again"), (6, "passed")]
    assert [event.step for event in told(run, StepDone)] == list(range(1, 13))
    assert attempts.count(6) == 2 and (not late or attempts.count(7) == 2)
    assert [line["action"] for line in lines(run)] == ["again", "passed"]


@pytest.mark.parametrize("late", [False, True], ids=["host", "late"])
def test_a_step_that_stays_broken_is_left_out(place, monkeypatch, late):
    if late:
        behind(monkeypatch)
    poison(monkeypatch, lambda step, attempt: step == 6)
    run = finish(Run(faulty(place)))
    assert actions(run) == [(6, "again"), (6, "skipped")]
    steps = {event.step: event.loss for event in told(run, StepDone)}
    assert sorted(steps) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12] and all(map(math.isfinite, steps.values()))
    assert told(run, EpochDone)[1].loss == pytest.approx((steps[5] + steps[7] + steps[8]) / 3, rel=1e-6)
    again, skipped = lines(run)
    assert (again["step"], again["epoch"], again["loss"]) == (6, 2, "nan") and again["not_finite"] == []
    micro = skipped["micro_batches"][0]
    assert micro["loss"] == "nan" and len(micro["pictures"]) == len(micro["captions"]) == len(micro["sigmas"]) == 1
    assert micro["pictures"][0].endswith(".png") and "zorple" in micro["captions"][0]


def test_a_killed_run_leaves_out_what_it_left_out(place, monkeypatch):
    """Broken in the first two attempts only: what was decided is not decided anew after a resume."""
    config = faulty(place, training={"state_every_steps": 2})
    attempts = poison(monkeypatch, lambda step, attempt: step == 6 and attempt < 3)
    whole = finish(Run(config))
    wanted = lora_of(whole)
    for stop in (5, 7):
        attempts.clear()
        with monkeypatch.context() as patched:
            submit_after(patched, {stop: [StopNow()]})
            cut = finish(Run(config))
        assert cut.folder is not None and cut.exit_reason == "stopped"
        if stop == 5:  # as if killed after it was decided, the state being older
            cut.folder.faults.write_bytes(whole.folder.faults.read_bytes())
        resumed = finish(open_run(cut.folder.root))
        assert same(lora_of(resumed), wanted), stop
        means = {event.epoch: event.loss for event in told(whole, EpochDone)}
        assert all(means[event.epoch] == event.loss for event in told(resumed, EpochDone))


@pytest.mark.parametrize("late", [False, True], ids=["host", "late"])
def test_three_in_a_row_stop_the_run_with_the_last_good_state(place, monkeypatch, late):
    config = faulty(place, saving={"every_epochs": 0})
    wanted = lora_of(finish(Run(config)))
    with monkeypatch.context() as patched:
        if late:
            behind(patched)
        poison(patched, lambda step, attempt: step in (5, 6, 7))
        run = finish(Run(config))
    [failure] = told(run, RunFailed)
    assert failure.title == "The loss is no longer a number" and "third such step" in failure.detail
    assert "step 7" in failure.detail and "The state of step 4 is saved" in failure.hint
    assert actions(run)[-1] == (7, "stopped") and actions(run).count((6, "skipped")) == 1
    assert run.folder is not None and not list(run.folder.root.glob("*.safetensors"))
    state, damaged = load_newest(run.folder.states)
    assert state is not None and state.place.step == 4 and not damaged
    again = finish(open_run(run.folder.root))  # mended: every step is tried anew
    assert told(again, RunStarted)[0].resumed_step == 4 and same(lora_of(again), wanted)


def test_stop_stops_at_the_first(place, monkeypatch):
    poison(monkeypatch, lambda step, attempt: step == 4)
    run = finish(Run(faulty(place, faults={"on_nonfinite": "stop"}, saving={"every_epochs": 0})))
    assert actions(run) == [(4, "again"), (4, "stopped")]
    assert "The state of step 3 is saved" in told(run, RunFailed)[0].hint
    assert run.folder is not None and not list(run.folder.root.glob("*.safetensors"))


def test_a_run_broken_from_the_first_step_says_so(place, monkeypatch):
    poison(monkeypatch, lambda step, attempt: True)
    run = finish(Run(faulty(place)))
    assert "Nothing was changed" in told(run, RunFailed)[0].hint and not told(run, StepDone)
    assert run.folder is not None and not list(run.folder.root.glob("*.safetensors"))


def test_the_last_step_may_be_left_out(place, monkeypatch):
    behind(monkeypatch)
    poison(monkeypatch, lambda step, attempt: step == 12)
    run = finish(Run(faulty(place)))
    assert run.exit_reason == "finished" and actions(run) == [(12, "again"), (12, "skipped")]
    assert lora_of(run)
