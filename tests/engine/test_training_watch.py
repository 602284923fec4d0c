"""The watch: silent over noisy runs that are in order, quick to tell of a jump, and right about its cause."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from pocket import finish, pocket_config, told

from engine.config import RunConfig
from engine.events import Entry, EventLog, Log, MemorySampled, RunStarted, Slowed, StateChanged, StepDone, SteppedDown
from engine.memory.plan import make_plan
from engine.run import Run
from engine.training.drift import WINDOW, Drift
from engine.training.next_value import blocks_for, to_free, to_use
from engine.training.watch import Watch, can_spill

DOUBLE, SINGLE = 452_000_000, 226_000_000
FLUX = [DOUBLE] * 19 + [SINGLE] * 38
"""Bytes of FLUX.1's blocks in bf16, about."""

BUCKETS = tuple(int(4608 * part) for part in (0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1))
USUAL = MemorySampled(20.0, 64.0, 4.0, 20.0, 24.0, 18.5, 98.0, 68.0, 320.0)


def config(**changes: Any) -> RunConfig:
    return pocket_config(Path("/nowhere"), dataset={"folders": [{"path": Path("/nowhere")}]}, **changes)


def times(seed: int, steps: int, scatter: float, sizes: tuple[int, ...] = (4608,), spikes: float = 0.05) -> Any:
    """Tokens and seconds of a run in order: larger pictures take more than their share, the card warms up by 8 %."""
    draw = random.Random(seed)
    for number in range(steps):
        tokens = draw.choice(sizes)
        seconds = tokens / 4608 * (1 + 0.1 * (tokens / 4608 - 1)) * math.exp(draw.gauss(0, scatter))
        seconds *= 1 + 0.08 * min(1.0, number / 400)
        yield tokens, seconds * (draw.uniform(1.5, 4.0) if draw.random() < spikes else 1.0)


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("sizes", [(4608,), BUCKETS])
def test_no_alarm_over_noisy_runs_in_order(scatter: float, sizes: tuple[int, ...]) -> None:
    for seed in range(12):
        drift = Drift()
        for number, (tokens, seconds) in enumerate(times(seed, 1200, scatter, sizes)):
            if number % 100 == 99:
                drift.interrupted()
            assert drift.add(tokens, seconds) is None, f"seed {seed}, step {number}"


@pytest.mark.parametrize(("scatter", "factor", "within"), [(0.02, 1.5, 14), (0.1, 1.6, WINDOW), (0.25, 2.5, WINDOW)])
@pytest.mark.parametrize("sizes", [(4608,), BUCKETS])
def test_a_jump_is_told_within_so_many_steps(
    scatter: float, factor: float, within: int, sizes: tuple[int, ...]
) -> None:
    for seed in range(100, 115):
        drift, found = Drift(), None
        for number, (tokens, seconds) in enumerate(times(seed, 400 + within, scatter, sizes)):
            change = drift.add(tokens, seconds * (factor if number >= 400 else 1.0))
            if change is not None:
                found = number, change
                break
        assert found is not None and found[0] >= 400, f"seed {seed}: {found}"
        assert found[1].factor == pytest.approx(factor, rel=0.3) or scatter > 0.1
        assert abs(found[0] - found[1].since + 1 - 400) <= 6, "it says since when"


def test_it_is_told_once_then_its_end_and_a_worsening() -> None:
    drift, seen = Drift(), []
    course = [1.0] * 60 + [1.6] * 80 + [4.0] * 40 + [1.05] * 60 + [1.7] * 40
    for number, (_, noise) in enumerate(times(3, len(course), 0.02, spikes=0.0)):
        change = drift.add(4608, course[number] * noise)
        if change is not None:
            seen.append((number, round(change.factor, 1)))
    kinds = ["end" if factor == 1.0 else "rise" for _, factor in seen]
    assert kinds == ["rise", "rise", "end", "rise"], seen
    assert 60 < seen[0][0] < 80 and 140 < seen[1][0] < 160 and 180 < seen[2][0] < 210


def test_a_run_that_becomes_quicker_is_measured_by_its_best() -> None:
    drift = Drift()
    course = [2.0] * 50 + [1.0] * 200 + [1.6] * 30
    found = [n for n, each in enumerate(course) if (change := drift.add(4608, each)) and change.factor > 1]
    assert found and found[0] > 250


def test_pauses_and_samples_do_not_count() -> None:
    """The steps after them are slow: clocks and memory come up again."""
    drift = Drift()
    for number, (tokens, seconds) in enumerate(times(5, 600, 0.02)):
        after = number % 5
        if after == 0:
            drift.interrupted()
        assert drift.add(tokens, seconds * (3.0 if after < 3 else 1.0)) is None


def series(
    watch: Watch, slow: dict[str, Any], sensed: MemorySampled, steps: int = 40, usual: MemorySampled = USUAL
) -> list[Any]:
    """What a watch tells over a run whose steps, and sensors, change after 100."""
    events: list[Any] = [RunStarted("r", "/r", "flux1", "dev", 10, 500, 20), StateChanged("training")]
    step = StepDone(0, 1, 0.5, 1e-4, 0.1, 2.0, 0.02, 1.9, 0.05, 0.6, 1.3, 0.1, 4608, 0.0)
    for number in range(1, 101 + steps):
        jumped = number > 100
        events.append(sensed if jumped else usual)
        events.append(replace(step, step=number, epoch=1 + number // 60, **(slow if jumped else {})))
        if number % 50 == 0:
            events += [StateChanged("sampling"), StateChanged("training")]
    entries = (Entry(number, 1000.0 + number, event) for number, event in enumerate(events, start=1))
    return [found for entry in entries if (found := watch.take(entry)) is not None]


FULL = replace(USUAL, vram_used_gb=23.8, vram_peak_gb=23.9)
TWICE = {"step_s": 4.2, "model_s": 4.1}


def test_a_full_card_under_wsl_spills_and_more_blocks_are_proposed() -> None:
    (found,) = series(Watch(lambda: config(), FLUX, spills=True), TWICE, FULL)
    assert found.cause == "spill" and found.factor == pytest.approx(2.1) and 98 <= found.step <= 106
    assert "the card is full (23.8 of 24.0 GiB)" in found.text and "2.1 times" in found.text
    (change,) = found.changes
    key, value = change.split(" = ")
    assert key == "memory.blocks_to_swap" and change in found.text
    freed = make_plan(FLUX, 0).device_bytes - make_plan(FLUX, int(value)).device_bytes
    assert 2**30 <= freed < 2 * 2**30


def test_elsewhere_a_full_card_is_no_spill_but_more_than_all_of_it_is() -> None:
    (found,) = series(Watch(lambda: config(), FLUX, spills=False), TWICE, FULL)
    assert found.cause == "unknown"
    (found,) = series(Watch(lambda: config(), FLUX, spills=False), TWICE, replace(FULL, vram_peak_gb=25.5))
    assert found.cause == "spill" and "free about 2.5 GiB" in found.text


@pytest.mark.parametrize(
    ("slow", "sensed", "cause", "words"),
    [
        ({"step_s": 4.0, "data_s": 1.9}, USUAL, "data", "reading the cache"),
        (
            {"step_s": 3.4, "stall_s": 1.4},
            replace(USUAL, vram_used_gb=23.2),
            "copies",
            "another program use the link",
        ),
        (TWICE, replace(USUAL, gpu_celsius=84.0, gpu_watts=190.0), "heat", "190 W instead of 320"),
        (TWICE, replace(USUAL, gpu_celsius=90.0), "heat", "at 90 °C"),
        (TWICE, replace(USUAL, gpu_watts=110.0, gpu_celsius=60.0), "power", "a limit was lowered"),
        (TWICE, USUAL, "unknown", "Another program may be computing"),
        (TWICE, replace(USUAL, gpu_percent=30.0, gpu_watts=100.0), "unknown", "waits for the processor"),
        (TWICE, MemorySampled(20.0, 64.0, 4.0), "unknown", "other programs"),
    ],
)
def test_the_cause_is_read_from_the_sensors(slow: Any, sensed: MemorySampled, cause: str, words: str) -> None:
    (found,) = series(Watch(lambda: config(), FLUX, spills=True), slow, sensed)
    assert (found.cause, found.changes) == (cause, ()) and words in found.text


def test_fewer_blocks_are_proposed_where_copies_are_waited_for_and_the_card_has_room() -> None:
    watch = Watch(lambda: config(memory={"blocks_to_swap": 30}), FLUX, spills=False)
    (found,) = series(watch, {"step_s": 3.4, "stall_s": 1.4}, replace(USUAL, vram_used_gb=18.0))
    assert found.cause == "copies" and found.changes[0].startswith("memory.blocks_to_swap = ")
    assert int(found.changes[0].split(" = ")[1]) < 30


def test_a_run_in_order_says_nothing() -> None:
    watch = Watch(lambda: config(), FLUX, spills=True)
    assert series(watch, {}, FULL) == [], "a full card at its old pace is just full"


def test_a_rung_of_the_ladder_makes_steps_slower_by_intent() -> None:
    watch, found = Watch(config, FLUX, spills=False), []
    step = StepDone(0, 1, 0.5, 1e-4, 0.1, 2.0, 0.02, 1.9, 0.05, tokens=4608)
    for number in range(1, 400):
        if number in (100, 310):
            stage = "training" if number == 100 else "sampling"
            down = SteppedDown(stage, number, "blocks_to_swap", "0", "20", "out of memory")
            found.append(watch.take(Entry(number, 1000.0, down)))
        slow = 1.0 if number < 100 else 1.8 if number < 300 else 3.6
        found.append(watch.take(Entry(number, 1000.0, replace(step, step=number, step_s=2.0 * slow))))
    (told_once,) = [each for each in found if each is not None]
    assert told_once.factor == pytest.approx(2.0), "against what they took on the new rung"


def test_what_frees_memory_goes_from_cheap_to_dear() -> None:
    settings, seen = config(training={"gradient_checkpointing": "none", "batch_size": 2}), []
    for _ in range(12):
        changes = to_free(settings, FLUX, 4.0)
        if not changes:
            break
        seen.append(changes)
        table: dict[str, Any] = {}
        for change in changes:
            key, value = change.split(" = ")
            group, name = key.split(".")
            table.setdefault(group, {})[name] = tomlkit.value(value).unwrap()
        parts = {group: getattr(settings, group).model_copy(update=values) for group, values in table.items()}
        settings = settings.model_copy(update=parts)
    assert seen[0] == ('training.gradient_checkpointing = "full"',)
    assert seen[1][0].startswith("memory.blocks_to_swap = ")
    assert ('memory.precision = "int8"',) in seen
    assert seen[-1] == ("training.batch_size = 1", "training.accumulation = 4")


def test_blocks_are_counted_with_their_ring() -> None:
    for now in (0, 5, 30):
        for wanted in (0.5, 2.0, 6.0):
            count = blocks_for(FLUX, now, wanted)
            held = make_plan(FLUX, now).device_bytes
            assert held - make_plan(FLUX, count).device_bytes >= wanted * 2**30
            assert count == now + 1 or held - make_plan(FLUX, count - 1).device_bytes < wanted * 2**30
    assert blocks_for(FLUX, 57, 1.0) == 0
    assert blocks_for(FLUX, 50, 100.0) == 57, "as much as there is"
    assert to_use(config(memory={"blocks_to_swap": 8}), FLUX, 0.5) == ()
    assert to_use(config(), FLUX, 20.0) == ()


def test_the_driver_of_windows_spills() -> None:
    assert can_spill("5.15.167.4-microsoft-standard-WSL2", "Linux") and can_spill("10.0", "Windows")
    assert not can_spill("6.8.0-45-generic", "Linux")


def test_a_run_asks_its_watch_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has a watch by itself; here it is given one, with an alarm ready."""
    looked: list[int] = []

    class Ready(Watch):
        def look(self, events: EventLog) -> None:
            super().look(events)
            looked.append(events.seq)
            if len(looked) == 2:
                events.append(Slowed(2, 1.5, "unknown", "slow"))

    from engine.trainer import Trainer

    real = Trainer._set_up

    def set_up(self: Any, made: Any) -> None:
        real(self, made)
        self.ledger.watch = Ready(lambda: self.config, self.kit.lean.source.plan.sizes, spills=False)

    monkeypatch.setattr(Trainer, "_set_up", set_up)
    run = finish(Run(pocket_config(tmp_path, training={"epochs": 1})))
    steps = told(run, StepDone)
    assert len(looked) == len(steps) == 3 and len(told(run, Slowed)) == 1
    assert not [event for event in told(run, Log) if "times as long" in event.text]
