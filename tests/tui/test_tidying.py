"""A full disk on the screen: what is said, and files that go only when marked and asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_run import FakeRun
from textual.pilot import Pilot
from watching import text_of, until

from engine.commands import Remove, Resume, StopNow
from engine.events import DiskTight, Entry, StateChanged
from tui.app import KilnApp
from tui.disk import disk_words
from tui.screens.dialogs import ChoiceDialog
from tui.screens.tidying import RemoveDialog
from tui.terminal.traits import Traits
from tui.view import RunView, fold
from tui.workplace import Workplace

PATHS = (
    "/work/runs/cat/state/step-00000100",
    "/work/runs/cat/cat-s000100.safetensors",
    "/work/runs/evil\x1b]0;owned\x07[/b][@click=app.quit]/x-s000001.safetensors",
)
TIGHT = DiskTight(1, 0.5, 0.4, PATHS, (2 * 10**8, 10**8, 5 * 10**7))


def test_the_log_names_what_could_go_and_says_when_there_is_room_again() -> None:
    view = RunView()
    fold(view, Entry(1, 0.0, TIGHT))
    assert view.disk is TIGHT
    line = view.log[-1]
    assert line.level == "warning" and "room for 1 more save" in line.text and "\x1b" not in line.text
    assert "cat/step-00000100, cat/cat-s000100.safetensors" in line.text and "350.0 MB" in line.text
    fold(view, Entry(2, 0.0, DiskTight(4, 90.0, 0.4)))
    assert view.disk is None and "room again" in view.log[-1].text
    assert disk_words(DiskTight(0, 0.1, 0.4)).startswith("the disk has room for no more save")


async def full(app: KilnApp, run: FakeRun, pilot: Pilot[Any]) -> None:
    """The run's disk is full."""
    await until(pilot, lambda: app.workplace.view.step > 2)
    run.events.append(TIGHT)
    await until(pilot, lambda: "f Free room" in text_of(app))


async def test_marked_files_are_asked_about_and_then_removed_by_the_run(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=1, steps_per_epoch=100_000)
    place = Workplace.around(run, tmp_path)
    app = KilnApp(place, Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await full(app, run, pilot)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, RemoveDialog))
        assert "[ ]  200.0 MB  cat/step-00000100" in text_of(app) and "\x1b" not in text_of(app)
        await pilot.press("a")
        await until(pilot, lambda: "3 of 3 marked, 350.0 MB" in text_of(app))
        await pilot.press("down", "space")
        await until(pilot, lambda: "2 of 3 marked, 250.0 MB" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "Remove these files?" in text_of(app) and "cat/step-00000100" in text_of(app)
        assert not [command for command in run.commands if isinstance(command, Remove)]
        await pilot.press("r")
        await until(pilot, lambda: Remove((PATHS[0], PATHS[2])) in run.commands)
        run.submit(StopNow())
    place.close()


async def test_nothing_is_removed_without_a_mark_or_after_a_no(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=1, steps_per_epoch=100_000)
    place = Workplace.around(run, tmp_path)
    app = KilnApp(place, Traits())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: place.view.step > 2)
        run.events.append(TIGHT)
        await until(pilot, lambda: place.view.disk is not None)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, RemoveDialog))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, RemoveDialog))
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, RemoveDialog))
        await pilot.press("space")
        await until(pilot, lambda: "1 of 3 marked" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("k")
        await until(pilot, lambda: not isinstance(app.screen, ChoiceDialog))
        assert not [command for command in run.commands if isinstance(command, Remove)]
        run.submit(StopNow())
    place.close()


async def test_a_run_that_the_disk_holds_says_why_and_space_tries_again(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, epochs=1, steps_per_epoch=100_000)
    place = Workplace.around(run, tmp_path)
    app = KilnApp(place, Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: place.view.step > 2)
        assert "Free room" not in text_of(app)
        run.events.append(StateChanged("paused", "The disk is full"))
        await until(pilot, lambda: "PAUSED   The disk is full: space tries again" in text_of(app))
        await pilot.press("space")
        await until(pilot, lambda: Resume() in run.commands)
        run.submit(StopNow())
    place.close()
