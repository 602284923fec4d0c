"""Hostile text planted wherever text comes from, shown on every screen: nothing of it reaches the terminal as orders.

Names of pictures, captions, a configuration with its name, prompts and trigger word, a run's folder, its events and
LoRA files, headers of model files, errors: each holds escape sequences, marks of direction, markup and actions. What
is sent for every line is looked at as the terminal would get it, and before the last guard as well, so that the
guard is not what the screens rely on.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import UNEQUAL, MadeUp
from test_safe import HOSTILE, dangerous
from textual.pilot import Pilot
from tiny_pictures import add
from watching import text_of, until

from engine.config_file import save_config
from engine.errors import EngineError
from engine.events import (
    CheckpointSaved,
    EpochDone,
    EventLog,
    Log,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
)
from engine.files import RunFolder
from profiles.starters import demo_config
from tui.app import KilnApp
from tui.screens.compare import CompareScreen
from tui.screens.dialogs import Choice, ChoiceDialog
from tui.screens.runs import RunsScreen
from tui.screens.setup import SetupScreen
from tui.screens.wizard import WizardScreen
from tui.settings import Settings
from tui.wizard.pages import PAGES
from tui.workplace import Workplace

EVIL = "\x1b]52;c;QQ==\x1b\\\x9b2J\u202egpj\u2066[/nope][@click=app.leave]x[/]\x07\x1b[6n"
NAMES = [
    text.replace("\0", "").replace("/", "_").replace("\ud800", "\udcff") for text in HOSTILE if text.strip("\0/")
]
SGR = re.compile(r"\x1b\[[0-9;]*m")


def events_of(folder: RunFolder, state: str) -> None:
    """A run's stream with payloads in every field of text."""
    folder.root.mkdir(parents=True)
    log = EventLog()
    log.open_file(folder.events)
    log.append(StateChanged("preparing", EVIL))
    log.append(RunStarted(folder.name, str(folder.root), EVIL, EVIL, 2, 20, 10))
    log.append(Progress(EVIL, 3, 10, EVIL))
    log.append(Log("warning", EVIL))
    log.append(Log(EVIL, EVIL))
    for step in range(1, 21):
        log.append(StepDone(step, 1 + step // 11, 0.5, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1))
    log.append(EpochDone(1, 10, 0.5))
    lora = folder.root / f"{EVIL.replace('/', '_')}.safetensors"
    lora.write_bytes(b"\0" * 64)
    log.append(CheckpointSaved(str(lora), 20, 2, "epoch", 64))
    log.append(SampleSaved(str(folder.samples / EVIL.replace("/", "_")), 20, 2, 0, EVIL, 1))
    if state == "failed":
        log.append(RunFailed(EVIL, EVIL, EVIL, EVIL))
    else:
        log.append(RunDone("stopped", 20, 2, str(lora), 20.0))
    log.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A work folder of nothing but payloads."""
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "image"
    for number, name in enumerate(NAMES):
        caption = EVIL if number % 2 else HOSTILE[number % len(HOSTILE)].replace("\ud800", "")
        add(pictures, f"{name[:40]}{number}.png", caption.replace("\0", ""))
    (pictures / f"broken{EVIL.replace('/', '_')}.png").write_bytes(b"no picture")
    config = demo_config(tmp_path / "runs")
    table = config.model_dump() | {"name": EVIL}
    table["dataset"]["folders"] = [{"path": pictures}]
    table["dataset"]["captions"]["trigger_word"] = EVIL
    table["sampling"]["prompts"] = [{"prompt": EVIL}]
    table["saving"] |= {"title": EVIL, "author": EVIL, "comment": EVIL}
    hostile = type(config).model_validate(table)
    save_config(hostile, tmp_path / f"{EVIL.replace('/', '_')}.toml")
    for number, state in enumerate(("failed", "stopped")):
        folder = RunFolder(tmp_path / "runs" / f"{number}{EVIL.replace('/', '_')}")
        events_of(folder, state)
        save_config(hostile, folder.config)
    return Workplace(tmp_path, Settings())


def assert_harmless(app: KilnApp) -> None:
    """No line holds what a terminal acts on, before the guard or after it.

    Setup form and wizard alone lean on the guard: their fields hold what will be written, so they hold it raw.
    """
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        sent = SGR.sub("", strip.render(app.console))
        assert not dangerous(sent), (y, sent)
        if not any(isinstance(screen, SetupScreen | WizardScreen) for screen in app.screen_stack):
            assert not dangerous(strip.text), (y, strip.text)


async def look(pilot: Pilot[Any], app: KilnApp, *keys: str) -> None:
    """Press keys one by one, and look at the screen after each."""
    for key in (*keys, ""):
        if key:
            await pilot.press(key)
        await pilot.pause()
        assert_harmless(app)


@pytest.mark.parametrize("size", [pytest.param((160, 45), marks=pytest.mark.slow), (80, 24)], ids=["160x45", "80x24"])
async def test_the_workbench_shows_only_harmless_text(place: Workplace, size: tuple[int, int]) -> None:
    app = KilnApp(place)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.workbench is not None and place.catalog.state == "ready")
        await until(pilot, lambda: place.config is not None and len(place.catalog.rows) >= len(NAMES))
        await look(pilot, app, *"jjjjkGg", "n", "o", "O")
        await look(pilot, app, "slash", *"evil", "escape", "escape")
        for pane in "12345":
            await look(pilot, app, pane, "z", "z")
        await look(pilot, app, "1", "enter")
        for _ in range(len(NAMES) if size[0] > 80 else 4):
            await look(pilot, app, "alt+down")
        await look(pilot, app, "ctrl+t", "escape", "escape")
        for folder in sorted((place.folder / "runs").iterdir()):
            place.show(folder)
            await until(pilot, lambda: app.workplace.view.step == 20)
            assert app.workbench is not None
            app.workbench.poll()
            for pane in "345":
                await look(pilot, app, "escape", pane, "z", "z")
        await look(pilot, app, "question_mark", "2", "j", "j", "escape", "ctrl+o", "escape")
        await look(pilot, app, "ctrl+p", *"pause", "escape")
    assert app.crash == "" and app.return_value is None


async def test_dialogs_and_notices_show_only_harmless_text(place: Workplace) -> None:
    app = KilnApp(place)
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await until(pilot, lambda: app.workbench is not None)
        app.show_error(EngineError(EVIL, EVIL, EVIL), EVIL, EVIL)
        await look(pilot, app, "y", "escape")
        app.push_screen(ChoiceDialog(EVIL, EVIL, [Choice("a", "a", EVIL), Choice("b", "b", EVIL)]))
        await look(pilot, app, "down", "escape")
        app.say(EVIL)
        app.notify(EVIL, severity="error", title=EVIL)
        app.warn(EngineError(EVIL, EVIL, EVIL))
        await look(pilot, app)
    assert app.crash == "" and app.return_value is None


@pytest.mark.parametrize("size", [(160, 45), (80, 24)], ids=["160x45", "80x24"])
async def test_the_list_of_runs_and_their_comparison_show_only_harmless_text(
    place: Workplace, size: tuple[int, int]
) -> None:
    app = KilnApp(place)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: place.config is not None)
        screen = RunsScreen(place)
        app.push_screen(screen)
        await until(pilot, lambda: app.screen is screen and not screen.reading)
        await look(pilot, app, "j", "k", "space", "j", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and "step" in text_of(app))
        await look(pilot, app, "escape", "question_mark", "escape", "slash", "x", "escape")
    assert app.crash == "" and app.return_value is None


@pytest.mark.parametrize("size", [(160, 45), (80, 24)], ids=["160x45", "80x24"])
async def test_the_setup_form_shows_only_harmless_text(
    place: Workplace, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.setup.models.known_roots", list)
    models = place.folder / "models"
    models.mkdir()
    header = json.dumps({"__metadata__": {"format": EVIL, EVIL: EVIL}}).encode()
    for name in NAMES[:6]:
        (models / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    app = KilnApp(place)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: place.config is not None)
        screen = SetupScreen(place, place.config, {"lora.rank": 4})
        app.push_screen(screen)
        await until(pilot, lambda: screen.finds is not None and not screen.busy)
        await look(pilot, app, *["tab"] * 24, "f2", "f4", "escape", "f7")
        await look(pilot, app, "escape")
    assert app.crash == "" and app.return_value is None


async def test_the_wizard_shows_only_harmless_text(place: Workplace) -> None:
    there = replace(UNEQUAL[0], name=EVIL, sentence=EVIL, machine=replace(UNEQUAL[0].machine, remarks=(EVIL,)))
    app = KilnApp(place)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: place.config is not None)
        place.session.wizard |= {"pilot": EVIL, "page": EVIL}
        screen = WizardScreen(place, MadeUp((there, UNEQUAL[1])), place.config)
        app.push_screen(screen)
        await until(pilot, lambda: screen.finds is not None and bool(screen.places) and not screen.busy)
        for _ in PAGES:
            await look(pilot, app, "tab", "tab", "f2", "f2", "pagedown")
        screen.show_page(4)
        await look(pilot, app, "f4", "escape")
    assert app.crash == "" and app.return_value is None
