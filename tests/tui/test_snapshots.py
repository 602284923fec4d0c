"""Pictures of the screen at its sizes and moments; renew them with ``--snapshot-update``.

The events, their times and the sample pictures are fixed, so the screen is too.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import PROMPTS, STAGES, write_picture
from textual.pilot import Pilot

import engine.events
from engine.commands import Command
from engine.events import (
    CheckpointSaved,
    EpochDone,
    EventLog,
    Log,
    MemorySampled,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
)
from engine.files import RunFolder
from tui.app import KilnApp
from tui.screens.run import RunScreen
from tui.widgets.samples import SamplesPane

PER_EPOCH = 40
EPOCHS = 6


class StillRun:
    """A run that has said all it will say, and is still alive or not."""

    def __init__(self, alive: bool) -> None:
        self.events = EventLog()
        self.folder = RunFolder(Path("glorb-on-meadow"))
        self.folder.samples.mkdir(parents=True)
        self.alive = alive

    def start(self) -> None:
        """Nothing to start."""

    def submit(self, command: Command) -> None:
        """Nothing obeys."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Over."""
        return True


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A clock that ticks half a second an event, in UTC; an empty working folder."""
    monkeypatch.chdir(tmp_path)
    ticks = itertools.count(1_790_000_000.0, 0.5)
    monkeypatch.setattr(engine.events.time, "time", lambda: next(ticks))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def prepare(run: StillRun, until_stage: int = len(STAGES)) -> None:
    """The events before the first step."""
    run.events.append(StateChanged("preparing"))
    steps = PER_EPOCH * EPOCHS
    run.events.append(RunStarted("glorb-on-meadow", "/runs/glorb-on-meadow", "flux1", "dev", EPOCHS, steps, 20))
    run.events.append(MemorySampled(9.0, 64.0, 1.1, 3.0, 24.0, 3.1, 10.0, 40.0, 60.0))
    for number, stage in enumerate(STAGES[:until_stage], start=1):
        done = 20 if number < until_stage or until_stage == len(STAGES) else 13
        run.events.append(Progress(stage, done, 20, "portrait_0013.png"))


def train(run: StillRun, steps: int) -> None:
    """Steps, epochs, files, samples and memory."""
    rng = random.Random(5)
    run.events.append(StateChanged("training"))
    for step in range(1, steps + 1):
        epoch = (step - 1) // PER_EPOCH + 1
        part = step / (PER_EPOCH * EPOCHS)
        loss = 0.3 + 0.6 * math.exp(-4 * part) + rng.gauss(0, 0.1) + (1.0 if step % 97 == 0 else 0.0)
        rate = 1e-4 * min(1.0, part * 10) * (0.55 + 0.45 * math.cos(math.pi * part))
        run.events.append(StepDone(step, epoch, loss, rate, 0.51, 1.42, 0.04, 1.22, 0.11))
        run.events.append(MemorySampled(21.0, 64.0, 3.2, 18.9, 24.0, 20.3, 96.0, 71.0, 402.0))
        if step % PER_EPOCH == 0:
            run.events.append(EpochDone(epoch, step, 0.3 + 0.6 * math.exp(-4 * part)))
            path = f"/runs/glorb-on-meadow/glorb-on-meadow-e{epoch:04d}.safetensors"
            run.events.append(CheckpointSaved(path, step, epoch, "epoch", 38_400_000))
            for index, prompt in enumerate(PROMPTS):
                name = f"{step}-{index}.png"
                write_picture(run.folder.samples / name, index, part)
                run.events.append(SampleSaved(f"/runs/glorb/{name}", step, epoch, index, prompt, 42 + index))
    run.events.append(Log("warning", "gradient norm 4.1 at step 131 was clipped to 1.0"))


async def settle(pilot: Pilot[Any]) -> None:
    """Let the first polls and the picture threads finish."""
    screen = next(screen for screen in pilot.app.screen_stack if isinstance(screen, RunScreen))
    for _ in range(40):
        await asyncio.sleep(0.1)
        screen.poll()
        pane = screen.query_one(SamplesPane)
        if not pane._pending and screen.run_view.seq == screen.training.events.seq and screen._ticks > 6:
            break
    await pilot.pause(0.2)


def app_at(moment: str) -> KilnApp:
    """The application at a moment of a run."""
    run = StillRun(alive=moment not in ("finished", "failed"))
    if moment == "caching":
        prepare(run, until_stage=2)
        return KilnApp(run, ascii_terminal=False)
    prepare(run)
    train(run, PER_EPOCH * (EPOCHS if moment == "finished" else 4) - (0 if moment == "finished" else 13))
    if moment == "paused":
        run.events.append(StateChanged("paused", "asked for"))
    if moment == "finished":
        lora = "/runs/glorb-on-meadow/glorb-on-meadow.safetensors"
        run.events.append(RunDone("finished", PER_EPOCH * EPOCHS, EPOCHS, lora, 345.0))
    if moment == "failed":
        run.events.append(RunFailed("The GPU's memory is full", "24.1 GB wanted, 23.6 free", "Lower the rank.", ""))
    return KilnApp(run, ascii_terminal=moment == "ascii")


@pytest.mark.parametrize(
    ("moment", "size", "keys"),
    [
        ("training", (160, 45), ""), ("finished", (160, 45), ""), ("training", (100, 30), ""),
        ("failed", (100, 30), ""),
        ("training", (80, 24), ""), ("paused", (80, 24), "2"), ("training", (80, 24), "3"), ("caching", (80, 24), ""),
        ("ascii", (100, 30), ""), ("training", (58, 12), ""), ("training", (100, 30), "s"),
        ("training", (100, 30), "question_mark"),
    ],
    ids=lambda value: f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value) or "-",
)  # fmt: skip
def test_screen(snap_compare: Any, moment: str, size: tuple[int, int], keys: str) -> None:
    async def before(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        if keys:
            await pilot.press(keys)
            await settle(pilot)

    assert snap_compare(app_at(moment), terminal_size=size, run_before=before)
