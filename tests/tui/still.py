"""Runs and screens that hold still, and the album that pictures of them are compared with.

Dataset, events, their times and the sample pictures are fixed, and what is read from the machine is left out, so a
picture of a moment is always the same.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import pkgutil
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import PROMPTS, STAGES, write_picture
from pocket import FILES, pictures
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

import tui
from engine.commands import Command
from engine.config import RunConfig
from engine.config_file import save_config
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
from engine.files import create_run_folder
from engine.text import safe_text
from tui.app import KilnApp
from tui.screens.compare import CompareScreen
from tui.screens.epochs_view import EpochsView
from tui.screens.panes import in_sight
from tui.screens.runs import RunsScreen
from tui.screens.setup import SetupScreen
from tui.screens.two_pictures import TwoPictures
from tui.screens.wizard import WizardScreen
from tui.terminal.traits import Traits
from tui.widgets.caption import CaptionPane
from tui.widgets.dataset import DatasetPane
from tui.widgets.epoch_grid import EpochGrid
from tui.widgets.preview import Preview
from tui.widgets.samples import SamplesPane
from tui.workplace import Workplace

WIDE, MEDIUM, SMALL, TINY = (160, 45), (100, 30), (80, 24), (58, 12)
SIZES = (WIDE, MEDIUM, SMALL)
IDS: dict[str, Any] = {"ids": lambda value: f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value)}

WORK = "/home/me/glorb"
"""What the work folder is called in pictures."""

PER_EPOCH = 40
EPOCHS = 6


class StillRun:
    """A run that has said all it will say, and is still alive or not.

    Its events have a clock that nothing else moves, not even the events of a run that another test left behind.
    """

    clock: Iterator[float]

    def __init__(self, config: RunConfig, alive: bool) -> None:
        self.config = config
        self.events = EventLog(clock=lambda: next(self.clock))
        self.folder = create_run_folder(config.runs_dir, config.name)
        save_config(config, self.folder.config)
        self.events.open_file(self.folder.events)
        self.alive = alive

    def start(self) -> None:
        """Nothing to start."""

    def submit(self, command: Command) -> None:
        """Nothing obeys."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Over."""
        return True


def small_config() -> RunConfig:
    """Eight pictures of the demonstration and its model, by paths that are the same everywhere."""
    pictures(Path("image"), 8)
    Path("model").symlink_to(FILES)
    files = {"transformer": "flux", "autoencoder": "ae", "clip_l": "clip", "t5": "t5"}
    model = {slot: Path("model") / f"{stem}-pocket.safetensors" for slot, stem in files.items()}
    return RunConfig.model_validate(
        {
            "name": "glorb-on-meadow",
            "model": model | {"t5_length": 20, "download_tokenizers": False,
                              "clip_tokenizer": Path("model/tokenizer"), "t5_tokenizer": Path("model/tokenizer_2")},
            "dataset": {"folders": [{"path": Path("image")}], "resolution": 64,
                        "captions": {"trigger_word": "zorple"},
                        "buckets": {"min_side": 64, "max_side": 128, "step": 16}},
            "training": {"epochs": EPOCHS, "batch_size": 2},
            "sampling": {"prompts": [{"prompt": prompt} for prompt in PROMPTS]},
        }
    )  # fmt: skip


@pytest.fixture
def still_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A clock that ticks half a second an event, in UTC; an empty working folder; no model files on the machine."""
    work = tmp_path / "glorb"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tui.setup.models.known_roots", list)

    def shown(text: object, *args: Any, **options: Any) -> str:
        return safe_text(str(text).replace(str(work), WORK), *args, **options)

    for found in pkgutil.walk_packages(tui.__path__, "tui."):
        importlib.import_module(found.name)  # one that is first needed later would keep the real paths
    for name, module in list(sys.modules.items()):
        if name.startswith("tui.") and getattr(module, "safe_text", None) is safe_text:
            monkeypatch.setattr(module, "safe_text", shown)
    monkeypatch.setattr(StillRun, "clock", itertools.count(1_790_000_000.0, 0.5), raising=False)
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
            (run.folder.root / Path(path).name).write_bytes(bytes(4096))
            for index, prompt in enumerate(PROMPTS):
                name = f"{step}-{index}.png"
                write_picture(run.folder.samples / name, index, part)
                run.events.append(SampleSaved(f"/runs/glorb/{name}", step, epoch, index, prompt, 42 + index))
    run.events.append(Log("warning", "gradient norm 4.1 at step 131 was clipped to 1.0"))


async def until(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Let the app go on until ``condition`` holds, and has been painted."""
    for _ in range(1200):
        await pilot.pause(0.02)
        if condition():
            break
    else:
        raise AssertionError("waited in vain")
    await pilot.pause(0.05)


def settled(app: KilnApp) -> bool:
    """Whether everything that is looked for in the background is there."""
    bench, catalog, screen = app.workbench, app.workplace.catalog, app.screen
    if bench is None or bench.feed is None or catalog.stage:
        return False
    if app.workplace.config is not None and catalog.state != "ready":
        return False
    bench.poll()
    bench.show_all()
    caption, dataset = bench.query_one(CaptionPane), bench.query_one(DatasetPane)
    caption._poll()
    dataset.poll()
    if caption.row is not dataset.chosen or (caption.row is not None and caption.gauges.counted.clip is None):
        return False
    preview, samples = bench.query_one(Preview), bench.query_one(SamplesPane)
    # Until another size's cells are there, the former size's are shown.
    fresh = preview._wanted is not None and preview._kept.get(preview._wanted) is preview._drawn
    drawn = (preview._drawn is not None and fresh) or not in_sight(preview) or not catalog.rows
    counted = all(row.t5 is not None for row in catalog.rows)
    if isinstance(screen, SetupScreen | WizardScreen) and (screen.finds is None or screen.busy):
        return False
    if isinstance(screen, WizardScreen) and not screen.places:
        return False
    if isinstance(screen, RunsScreen) and (screen.reading or not screen.cards):
        return False
    if isinstance(screen, EpochsView) and not (screen.ready and not screen.query_one(EpochGrid)._pending):
        return False
    if isinstance(screen, TwoPictures) and any(
        picture._wanted is not None and picture._kept.get(picture._wanted) is None
        for picture in screen.query(Preview)
    ):
        return False
    if isinstance(screen, CompareScreen) and not all(worker.is_finished for worker in app.workers):
        return False
    if isinstance(screen, CommandPalette) and not screen.has_class("-ready"):
        return False
    return drawn and counted and not samples._pending


def look(app: KilnApp) -> object:
    """The screen, to be compared with how it was a moment ago."""
    return [list(strip) for strip in app.screen._compositor.render_strips()]


def app_at(moment: str, detachable: bool = True, utf8: bool = True) -> KilnApp:
    """The application at a moment of a run."""
    if moment == "empty":
        return showing(Workplace(Path.cwd()), detachable, utf8)
    config = small_config()
    if moment == "idle":
        place = Workplace(Path.cwd())
        place.config = config
        return showing(place, detachable, utf8)
    earlier_run(config)
    run = StillRun(config, alive=moment not in ("finished", "failed", "stopped"))
    place = Workplace.around(run, Path.cwd())
    if moment == "caching":
        prepare(run, until_stage=2)
        return showing(place, detachable, utf8)
    prepare(run)
    train(run, PER_EPOCH * (EPOCHS if moment == "finished" else 4) - (0 if moment == "finished" else 13))
    if moment == "paused":
        run.events.append(StateChanged("paused"))
    if moment == "stopped":
        run.events.append(RunDone("stopped", PER_EPOCH * 4 - 13, 4, "", 230.0))
    if moment == "finished":
        lora = str(run.folder.root / "glorb-on-meadow.safetensors")
        run.events.append(RunDone("finished", PER_EPOCH * EPOCHS, EPOCHS, lora, 345.0))
    if moment == "failed":
        run.events.append(RunFailed("The GPU's memory is full", "24.1 GB wanted, 23.6 free", "Lower the rank.", ""))
    return showing(place, detachable, utf8)


def earlier_run(config: RunConfig) -> None:
    """A run of another rank that is over: something to list and to compare with."""
    lora = config.lora.model_copy(update={"rank": 4})
    run = StillRun(config.model_copy(update={"name": "first-try", "lora": lora}), alive=False)
    prepare(run)
    train(run, PER_EPOCH * 2)
    run.events.append(RunDone("stopped", PER_EPOCH * 2, 2, "", 120.0))
    os.utime(run.folder.events, (1_700_000_000, 1_700_000_000))


def showing(place: Workplace, detachable: bool = True, utf8: bool = True) -> KilnApp:
    """The application around ``place``, on a machine that is always the same."""
    place.machine = "RTX 4090 24 GB"
    return KilnApp(place, Traits(utf8=utf8), detachable=detachable)


async def press(pilot: Pilot[Any], app: KilnApp, keys: str) -> None:
    """Press ``keys`` (separated by spaces) and wait until the screen stands still."""
    for key in keys.split():
        await pilot.press(key)
        await until(pilot, lambda: settled(app))


class Album:
    """Pictures compared with those of before: all are taken, then what differs is told.

    Args:
        snapshot: syrupy's; the test's name and the picture's make the file's.
        folder: takes the pictures that differ.
    """

    def __init__(self, snapshot: SnapshotAssertion, folder: Path) -> None:
        self._snapshot = snapshot.use_extension(SVGImageExtension)
        self.folder = folder
        self.differing: list[str] = []

    async def take(self, pilot: Pilot[Any], name: str) -> None:
        """Compare the screen as it is."""
        app = pilot.app
        assert isinstance(app, KilnApp)
        for field in (*app.screen.query(Input), *app.screen.query(TextArea)):
            field.cursor_blink = False
        seen: object = None
        while seen != (seen := look(app)):
            await until(pilot, lambda: settled(app))
        picture = app.export_screenshot(title="kiln")
        if picture != self._snapshot(name=name):
            self.differing.append(name)
            (self.folder / f"{name}.svg").write_text(picture, encoding="utf-8")

    def check(self) -> None:
        """Fail where a picture was another one."""
        told = f"other pictures than before, now in {self.folder}: --snapshot-update renews them"
        assert not self.differing, f"{', '.join(self.differing)}: {told}"


@pytest.fixture
def album(snapshot: SnapshotAssertion, still_world: None, tmp_path: Path) -> Iterator[Album]:
    """An album in a still world."""
    pages = Album(snapshot, tmp_path)
    yield pages
    pages.check()
