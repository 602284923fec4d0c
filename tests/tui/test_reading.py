"""The sentence beside the curve: right for curves whose meaning is known."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from engine.events import Entry, RunDone, RunFailed, Slowed, StateChanged, StepDone
from tui.reading import reading
from tui.view import RunView, fold


def view_of(losses: list[float], steps: int = 0) -> RunView:
    """A view after these losses, of a run of ``steps`` if they are known."""
    view = RunView(steps=steps)
    fold(view, Entry(1, 1.0, StateChanged("training")))
    for number, loss in enumerate(losses, start=1):
        fold(view, Entry(number + 1, number + 1.0, StepDone(number, 1, loss, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1)))
    return view


def course(start: float, end: float, steps: int, scatter: float = 0.1, seed: int = 0) -> list[float]:
    """A straight line with the scatter that single steps have."""
    rng = random.Random(seed)
    return [start + (end - start) * step / steps + rng.gauss(0, scatter) for step in range(steps)]


def test_nothing_is_said_of_nothing() -> None:
    assert reading(RunView()).text == ""


def test_a_short_course_is_too_early() -> None:
    assert reading(view_of(course(1.0, 0.1, 30))).text.startswith("Too early")


@pytest.mark.parametrize("steps", [60, 400, 5_000])
@pytest.mark.parametrize(
    ("start", "end", "word", "sign"), [(1.0, 0.4, "Falling", "good"), (0.4, 1.2, "Rising", "bad")]
)
def test_trends(start: float, end: float, word: str, sign: str, steps: int) -> None:
    told = reading(view_of(course(start, end, steps)))
    assert (told.text.split(":")[0], told.sign) == (word, sign)


@pytest.mark.parametrize("steps", [60, 400, 5_000])
def test_a_plateau_is_no_fault(steps: int) -> None:
    courses = [view_of(course(0.5, 0.5, steps, seed=seed)) for seed in range(20)]
    told = [reading(view).sign for view in courses]
    assert told.count("flat") >= 17  # scatter alone may look like a trend now and then
    assert told.count("bad") <= 1


def test_a_fall_that_ended_is_flat() -> None:
    assert reading(view_of(course(1.0, 0.4, 1_000) + course(0.4, 0.4, 2_000))).sign == "flat"


def test_a_spike_is_normal_until_it_is_forgotten() -> None:
    losses = course(0.5, 0.5, 200, scatter=0.05)
    assert reading(view_of([*losses, 2.0])).text.startswith("A spike")
    assert reading(view_of([*losses, 2.0, *losses[:20]])).text.startswith("Flat")


def test_many_high_losses_are_no_spike() -> None:
    losses = course(0.5, 0.5, 200, scatter=0.05)
    assert not reading(view_of(losses + [2.0] * 5)).text.startswith("A spike")


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_told_at_once(broken: float) -> None:
    told = reading(view_of([*course(1.0, 0.5, 10), broken]))
    assert told.text.startswith("Not a number") and told.sign == "bad"


def test_the_end_points_to_the_samples() -> None:
    view = view_of(course(1.0, 0.5, 100))
    fold(view, Entry(200, 200.0, RunDone("finished", 100, 1, "x.safetensors", 100.0)))
    assert "samples" in reading(view).text


def test_equal_losses_divide_by_nothing() -> None:
    assert reading(view_of([0.0] * 100)).sign == "flat"


def test_the_sentence_stays_long_enough_to_be_believed() -> None:
    steps = 800
    losses = [0.4 + 0.6 * math.exp(-6 * step / steps) for step in range(steps)]
    noise = course(0.0, 0.0, steps, scatter=0.12, seed=3)
    losses = [loss + jump for loss, jump in zip(losses, noise, strict=True)]
    view, told = RunView(steps=steps), []
    for number, loss in enumerate(losses, start=1):
        fold(view, Entry(number, number / 10, StepDone(number, 1, loss, 1e-4, 0.5, 0.05, 0.0, 0.04, 0.01)))
        told.append(reading(view).text)
    changes = sum(before != after for before, after in pairwise(told))
    assert changes <= 6
    assert not any(text.startswith("Flat") for text in told[: steps // 4])


def test_an_early_plateau_is_not_called_flat() -> None:
    assert reading(view_of(course(0.5, 0.5, 100), steps=1_000)).text.startswith("No trend yet")
    assert reading(view_of(course(0.5, 0.5, 300), steps=1_000)).text.startswith("Flat")


def test_a_failed_run_is_not_called_flat() -> None:
    view = view_of(course(0.5, 0.5, 300), steps=300)
    fold(view, Entry(999, 999.0, RunFailed("The GPU's memory is full", "", "", "")))
    assert reading(view).sign == "bad" and "failed" in reading(view).text


def test_what_has_become_slow_comes_before_the_trend() -> None:
    view = view_of(course(1.0, 0.4, 100))
    fold(view, Entry(200, 200.0, Slowed(60, 1.8, "heat", "hot")))
    assert reading(view).text.startswith("Slower: steps take 1.8 times") and reading(view).sign == "bad"
    fold(view, Entry(201, 201.0, Slowed(90, 1.0, "over", "as before")))
    assert reading(view).text.startswith("Falling")
