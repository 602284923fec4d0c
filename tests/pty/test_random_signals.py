"""SIGTERM and SIGINT at random moments of real runs: whatever they do then, they save and end, and restore."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from statistics import median

import pytest
from children import Child, Work, assert_restored, has_echo, wait_until
from pocket import pocket_config
from reliability import figure

from engine.config_file import save_config
from engine.files import RunFolder

pytestmark = pytest.mark.pty

WAYS = ("host", "foreground", "headless")


def write_config(work: Work) -> None:
    """A run that goes from one thing to another all the time: samples and files after every epoch of three steps."""
    changes = {
        "training": {"epochs": 4000, "state_every_steps": 2},
        "sampling": {"prompts": [{"prompt": "a zorple"}], "every_epochs": 1},
        "saving": {"every_epochs": 1},
    }
    save_config(pocket_config(work.folder, **changes), work.folder / "test.toml")


def begin(work: Work, way: str) -> Child:
    """Train in one of the ways there are; the run is under way, and tells."""
    options = {"host": ("--ui",), "foreground": ("--ui", "--foreground"), "headless": ()}[way]
    known = set(work.runs.iterdir()) if work.runs.exists() else set()
    child = work.program("-m", "tui", "train", "test.toml", *options)
    child.wait_for(lambda: work.runs.exists() and any((run / "events.jsonl").exists() for run in _new(work, known)))
    return child


def _new(work: Work, known: set[Path]) -> set[Path]:
    return set(work.runs.iterdir()) - known


def newest(work: Work) -> Path:
    """The folder of the run begun last."""
    return max(work.runs.iterdir(), key=lambda run: run.stat().st_ctime_ns)


def told(run: Path) -> list[dict[str, object]]:
    """The run's events."""
    whole = (run / "events.jsonl").read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def stop(work: Work, way: str, chance: random.Random) -> tuple[str, float]:
    """Send a signal at a random moment; the state that it came in, and how long the end took."""
    child = begin(work, way)
    run, wanted = newest(work), chance.randrange(80)
    child.wait_for(lambda: len(told(run)) > wanted)
    child.read(chance.uniform(0, 0.3))
    number, began = chance.choice((signal.SIGTERM, signal.SIGINT)), time.monotonic()
    before = [event["state"] for event in told(run) if event["type"] == "StateChanged"]
    os.kill(work.host() if way == "host" else child.pid, number)
    assert child.wait() == 128 + number, (way, before, child.seen[-600:])
    if way == "host":
        wait_until(lambda: not work.host_is_alive())
    took = time.monotonic() - began
    if way == "headless":
        assert has_echo(child)
    else:
        assert_restored(child)
    last = told(run)[-1]
    assert last["type"] == "StateChanged" and last["state"] == "stopped", last
    left = [path.name for path in run.rglob("*") if path.name.endswith((".part", ".tmp"))]
    assert not left
    assert (RunFolder(run).root / "config.toml").is_file()
    return str(before[-1]) if before else "new", took


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=[pytest.mark.crash, pytest.mark.timeout(3600)])])
def test_a_signal_at_any_moment_saves_ends_and_restores(work: Work, times: int) -> None:
    chance = random.Random(times)
    write_config(work)
    ends = [stop(work, WAYS[number % len(WAYS)], chance) for number in range(times)]
    states = {state: sum(found == state for found, _ in ends) for state, _ in ends}
    seconds = [took for _, took in ends]
    figure("signals", "at random moments; state they came in", f"{times}; {states}")
    figure("signals", "seconds to the end, median and longest", f"{median(seconds):.1f}, {max(seconds):.1f}")
    figure("signals", "ended within 10 s", f"{sum(took <= 10 for took in seconds)} of {times}")
