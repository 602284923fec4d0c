"""Losses that jump: told when three in a row stand out, never for what a noisy run does by itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from pocket import finish, told
from scarce_runs import make_place, small

from engine.errors import DiskError
from engine.events import Log, LossSpiked, StepDone
from engine.run import Run
from engine.training import checkpoint
from engine.training.checkpoint import KEPT, Place, TrainingState, generations, keep_before, save_state
from engine.training.kit import Kit
from engine.training.spikes import FEWEST, IN_A_ROW, WINDOW, Spike, Spikes, robust_z


def spikes_in(losses: list[float]) -> list[Spike]:
    """What is told along a curve; steps count from 1."""
    watch = Spikes()
    found = [watch.add(step, loss, f"{step}.png") for step, loss in enumerate(losses, 1)]
    return [spike for spike in found if spike is not None]


def noisy(count: int, seed: int = 1) -> list[float]:
    """Losses as flow matching has them: drawn by noise level, skewed, slowly falling."""
    draw = random.Random(seed)
    return [0.25 + 0.6 * draw.betavariate(1.2, 3.0) + 0.2 / (1 + step / 100) for step in range(count)]


def test_the_robust_score_ignores_a_few_wild_values():
    before = [1.0, 1.1, 0.9, 1.05, 0.95] * 10
    assert robust_z(1.0, before) == 0.0
    assert robust_z(2.0, before) == pytest.approx(1.0 / (1.4826 * 0.05), rel=1e-9)
    assert robust_z(2.0, [*before, 1e9, 1e9]) == pytest.approx(robust_z(2.0, before), rel=0.05)
    assert robust_z(1.0005, [1.0] * 50) < 1 and robust_z(0.2, before) < 0


def test_three_in_a_row_are_told_once_with_their_pictures():
    losses = [*noisy(120), 9.0, 10.0, 11.0, 12.0, 13.0, *noisy(30, 2)]
    [spike] = spikes_in(losses)
    assert spike.steps == (121, 122, 123) and spike.names == ("121.png", "122.png", "123.png")
    assert spike.loss == 11.0 and spike.score > 8 and 0.3 < spike.usual < 0.7


def test_fewer_or_parted_ones_are_not_told():
    assert not spikes_in([*noisy(120), 9.0, 9.0, *noisy(10), 9.0, 9.0, *noisy(10), 9.0])
    assert not spikes_in([9.0] * 3 + noisy(60))
    assert not spikes_in([*noisy(FEWEST - 1), 9.0, 9.0, 9.0])


def test_a_second_jump_is_told_anew_and_what_lasts_becomes_usual():
    again = [*noisy(120), *[9.0] * IN_A_ROW, *noisy(20), *[9.0] * IN_A_ROW, *noisy(20)]
    assert [spike.steps[0] for spike in spikes_in(again)] == [121, 144]
    lasting = [*noisy(120), *[loss + 9 for loss in noisy(3 * WINDOW)], *[90.0] * IN_A_ROW]
    assert [spike.steps[0] for spike in spikes_in(lasting)] == [121, 121 + 3 * WINDOW]


def test_numbers_that_are_none_are_passed_over():
    losses = [*noisy(120), 9.0, float("nan"), 9.0, float("inf"), 9.0]
    assert [spike.steps for spike in spikes_in(losses)] == [(121, 123, 125)]


def test_noisy_curves_give_no_alarm():
    alarms = sum(len(spikes_in(noisy(2000, seed))) for seed in range(20))
    assert alarms == 0


def state(step: int) -> TrainingState:
    return TrainingState(Place(step=step), {"a": torch.ones(2)}, {}, {}, {})


def names(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in generations(folder)]


def test_a_state_from_before_outlives_pruning_and_two_at_most(tmp_path):
    for step in range(1, 20):
        save_state(tmp_path, state(step), keep=2)
        if step in (4, 9, 14):
            assert keep_before(tmp_path, step, "the loss jumped") == step - 1
    assert names(tmp_path) == [19, 18, 13, 8]
    assert (tmp_path / "step-00000013" / KEPT).read_text() == "the loss jumped\n"
    assert keep_before(tmp_path / "none", 4, "") == 0
    save_state(tmp_path, state(10), keep=2)  # what is later goes, kept or not: it is of a past that was replaced
    assert names(tmp_path) == [10, 8]


def test_a_jump_in_a_run_is_told_and_changes_nothing(tmp_path, monkeypatch):
    place = make_place(tmp_path)
    config = small(place, training={"epochs": 30, "state_every_steps": 10}, saving={"keep_states": 1})
    quiet = finish(Run(config))
    assert not told(quiet, LossSpiked)
    learn, calls = Kit.learn, [0]

    def learns(self, *rest):
        loss, each = learn(self, *rest)
        calls[0] += 1
        return (loss + 100 if 53 <= calls[0] <= 55 else loss), each

    monkeypatch.setattr(Kit, "learn", learns)
    run = finish(Run(config))
    [event] = told(run, LossSpiked)
    assert event.step == 55 and event.kept_step == 50 and len(event.names) == 3 and "state of step 50" in event.text
    assert len(told(run, StepDone)) == 60 and names(run.folder.states) == [60, 50]

    write = checkpoint.atomic_write

    def full(path, data):
        if path.name == KEPT:
            raise DiskError("The disk is full", "", "")
        write(path, data)

    calls[0] = 0
    monkeypatch.setattr(checkpoint, "atomic_write", full)
    run = finish(Run(config))
    assert run.exit_reason == "finished" and told(run, LossSpiked)[0].kept_step == 0
    assert any("No state from before is kept" in log.text for log in told(run, Log))
