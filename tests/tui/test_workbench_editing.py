"""The workbench as one tool: cursor and caption, edits during a run, starting, leaving, coming back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun
from pocket import pictures, pocket_config
from textual.pilot import Pilot
from textual.widgets import OptionList
from watching import text_of, until

from engine.commands import StopNow
from engine.config import RunConfig
from engine.config_file import save_config
from engine.events import CaptionsTaken, EventLog, RunStarted, StateChanged, StepDone
from engine.files import create_run_folder
from tui.app import KilnApp
from tui.screens.dialogs import ChoiceDialog
from tui.screens.editing import epoch_of_edit
from tui.screens.runs import RunsScreen
from tui.screens.workbench import Workbench
from tui.session import SessionState
from tui.terminal.traits import Traits
from tui.view import RunView
from tui.widgets.caption import CaptionPane
from tui.widgets.dataset import DatasetPane, FilterInput
from tui.widgets.dataset_table import DatasetTable
from tui.widgets.keyline import KeyLine
from tui.widgets.plan import Plan
from tui.workplace import Workplace


class LiveRun(FakeRun):
    """A fake run with a configuration, of few long epochs."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config.runs_dir, epochs=3, steps_per_epoch=100_000, step_s=0.01)
        self.config = config


@asynccontextmanager
async def showing(
    place: Workplace, size: tuple[int, int] = (160, 45), detachable: bool = False
) -> AsyncIterator[tuple[Pilot[Any], KilnApp]]:
    """The application around ``place``, with its dataset read and listed; a live run is ended afterwards."""
    app = KilnApp(place, Traits(), detachable=detachable)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        await until(pilot, lambda: place.catalog.state in ("ready", "failed"))
        # The table takes what was read at its next look; a key pressed before finds nothing to move over.
        await until(pilot, lambda: len(dataset(app).listing.rows) == len(place.catalog.rows))
        try:
            yield pilot, app
        finally:
            if place.run is not None:
                place.run.submit(StopNow())
    assert app.crash == ""


def dataset(app: KilnApp) -> DatasetPane:
    """The dataset pane."""
    assert app.workbench is not None
    return app.workbench.query_one(DatasetPane)


def editing(app: KilnApp) -> CaptionPane:
    """The caption pane."""
    assert app.workbench is not None
    return app.workbench.query_one(CaptionPane)


def idle(tmp_path: Path, **session: object) -> Workplace:
    """A work folder with a configuration of five pictures."""
    save_config(pocket_config(tmp_path), tmp_path / "test.toml")
    return Workplace(tmp_path, session=SessionState(**session))  # type: ignore[arg-type]


async def test_the_caption_follows_the_cursor_and_typing_goes_on_in_the_next(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: editing(app).row is not None)
        await pilot.press("j", "j")
        await until(pilot, lambda: editing(app).row is place.catalog.rows[2])
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is editing(app).editor)
        await pilot.press("ctrl+end", *"!?")
        await pilot.press("alt+down")
        await until(pilot, lambda: editing(app).row is place.catalog.rows[3])
        assert app.focused is editing(app).editor
        written = place.catalog.rows[2].caption_path
        await until(pilot, lambda: written.read_text().strip().endswith("!?"))
        await pilot.press("escape")
        await until(pilot, lambda: place.session.pane == "dataset")
        assert place.session.edited == {}  # no run is live: nothing to say of epochs
    place.close()


async def test_an_edit_during_a_run_says_from_which_epoch_it_counts(tmp_path: Path) -> None:
    run = LiveRun(pocket_config(tmp_path))
    place = Workplace.around(run, tmp_path)
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: place.view.step > 3 and editing(app).row is not None)
        await pilot.press("1", "enter")
        await until(pilot, lambda: app.focused is editing(app).editor)
        await pilot.press("x")
        await until(pilot, lambda: place.session.edited == {str(place.catalog.rows[0].path): 2})
        await until(pilot, lambda: "epoch 2" in text_of(app) or "e2" in text_of(app))
        run.events.append(CaptionsTaken(2, (str(place.catalog.rows[0].path),)))
        await until(pilot, lambda: place.session.edited == {})
    place.close()


async def test_the_plan_is_shown_and_started_by_keys(tmp_path: Path) -> None:
    place = idle(tmp_path, pane="training")
    begun: list[RunConfig] = []

    def begin(config: RunConfig) -> FakeRun:
        begun.append(config)
        run = LiveRun(config)
        place.take(run)
        place.begin_pending()
        return run

    place.begin = begin  # type: ignore[method-assign,assignment]
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: "Ready: test" in text_of(app) and "9 steps" in text_of(app))
        assert "READY" in text_of(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("s")
        await until(pilot, lambda: place.view.step > 2)
        assert begun == [pocket_config(tmp_path)]
        bench = app.workbench
        assert bench is not None
        await until(pilot, lambda: not bench.query_one(Plan).display)
        assert "enter Start" not in text_of(app)
    place.close()


async def test_leaving_a_host_asks_to_detach(tmp_path: Path) -> None:
    run = LiveRun(pocket_config(tmp_path))
    place = Workplace.around(run, tmp_path)
    async with showing(place, detachable=True) as (pilot, app):
        await until(pilot, lambda: place.view.step > 1)
        await pilot.press("q")
        await until(pilot, lambda: "Detach: the run goes on" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: not app.is_running)
        assert app.return_value == "detach" and run.alive and run.commands == []
    place.close()


@pytest.mark.parametrize("where", ["dataset", "caption", "filter", "dialog", "form"])
async def test_one_key_detaches_wherever_one_is(tmp_path: Path, where: str) -> None:
    place = idle(tmp_path)
    async with showing(place, detachable=True) as (pilot, app):
        await until(pilot, lambda: app.focused is not None)
        keys = {"caption": ["2"], "filter": ["1", "slash"], "dialog": ["3", "enter"], "form": ["ctrl+n"]}
        await pilot.press(*keys.get(where, ["1"]))
        await pilot.press("ctrl+z")
        assert app.is_running
        await pilot.press("ctrl+backslash")
        await until(pilot, lambda: not app.is_running)
        assert app.return_value == "detach"
    place.close()


async def test_ctrl_z_names_the_key_and_an_idle_host_is_left_at_once(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place, detachable=True) as (pilot, app):
        await until(pilot, lambda: app.focused is not None and "^\\ Detach" in text_of(app))
        await pilot.press("ctrl+z")
        await until(pilot, lambda: "ctrl+\\ gives the terminal back" in text_of(app))
    async with showing(place, detachable=True) as (pilot, app):
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
        assert app.return_value == "leave"
    place.close()


async def test_leaving_from_another_thread_counts_once(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place) as (pilot, app):
        await asyncio.get_running_loop().run_in_executor(None, app.leave, "hangup")
        app.leave("replaced")
        await until(pilot, lambda: not app.is_running)
        assert app.return_value == "hangup"
    place.close()


async def test_everything_is_where_it_was_when_the_user_comes_back(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place) as (pilot, app):
        await pilot.press("j", "j", "j", "3", "m", "[", "z")
        await until(pilot, lambda: place.session.zoomed and place.session.cursor == str(place.catalog.rows[3].path))
    async with showing(place, size=(100, 30)) as (pilot, app):
        bench = app.workbench
        assert isinstance(bench, Workbench)
        await until(pilot, lambda: app.focused is not None and app.focused.id == "training")
        assert bench.has_class("-zoom") and bench.has_class("-medium")
        await until(pilot, lambda: editing(app).row is place.catalog.rows[3])
        assert bench.feed is not None and bench.feed.training.window == 1
        await pilot.press("escape", "r")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)
        assert place.session.screen == "workbench"
    place.close()


async def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    place = Workplace(tmp_path, session=SessionState(pane="training"))
    app = KilnApp(place, Traits())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Nothing to train yet" in text_of(app))
        assert "set up a run" in text_of(app)
    place.close()


async def test_a_folder_of_pictures_can_be_captioned_before_anything_else(tmp_path: Path) -> None:
    pictures(tmp_path / "image", 3)
    place = Workplace(tmp_path, session=SessionState())
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: len(place.catalog.rows) == 3 and editing(app).row is not None)
        await pilot.press("e", "ctrl+end", "!")
        await until(pilot, lambda: (tmp_path / "image" / "00.txt").read_text().strip().endswith("!"))
    place.close()


async def test_the_line_of_keys_keeps_help_and_leaving_in_sight(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place, size=(60, 24)) as (pilot, app):
        await until(pilot, lambda: "? Help  q Leave" in text_of(app))
        line = app.screen.query_one(KeyLine)
        at = line.render_line(0).text.index("? Help")
        await pilot.click(KeyLine, offset=(at, 0))
        await until(pilot, lambda: app.screen is not app.workbench)
    place.close()


async def test_a_capital_is_text_in_a_field_however_the_terminal_spells_it(tmp_path: Path) -> None:
    run = LiveRun(pocket_config(tmp_path))
    place = Workplace.around(run, tmp_path)
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: place.view.step > 1)
        await pilot.press("2", "home", "shift+s", "P")
        await until(pilot, lambda: editing(app).editor.text.startswith("SP"))
        assert run.commands == [] and "Save" not in text_of(app).splitlines()[-1]
    place.close()


@pytest.mark.parametrize(
    ("state", "epoch", "ran", "counts"),
    [("caching", 0, False, 2), ("training", 72, True, 73), ("saving", 72, True, 73), ("sampling", 72, True, 73),
     ("caching", 72, True, 74), ("caching", 72, False, 73)],
)  # fmt: skip
def test_an_edit_counts_from_the_epoch_at_which_the_run_looks_next(
    state: str, epoch: int, ran: bool, counts: int
) -> None:
    view = RunView(state=state, epoch=epoch)
    if ran:
        view.recent.append(StepDone(720, epoch, 0.5, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1))
    assert epoch_of_edit(view) == counts


async def test_the_focus_comes_back_from_a_terminal_too_small_for_panes(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place, (80, 24)) as (pilot, app):
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.focused, DatasetTable))
        for size in ((59, 17), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await until(pilot, lambda: isinstance(app.focused, DatasetTable))
        await pilot.press("j")
        await until(pilot, lambda: place.session.cursor == str(place.catalog.rows[1].path))
        assert place.session.filter == ""
    place.close()


async def test_what_is_typed_into_a_hidden_filter_is_nothing(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place) as (pilot, app):
        app.screen.set_focus(app.screen.query_one(FilterInput))
        await pilot.pause()
        assert not isinstance(app.focused, FilterInput)
    place.close()


async def test_a_run_that_broke_off_is_gone_on_with_first(tmp_path: Path) -> None:
    config = pocket_config(tmp_path)
    folder = create_run_folder(config.runs_dir, config.name)
    save_config(config, folder.config)
    events = EventLog(folder.events)
    for event in (
        RunStarted(config.name, str(folder.root), "flux1", "dev", 3, 900, 5), StateChanged("training"),
        StepDone(463, 2, 0.5, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1),
    ):  # fmt: skip
        events.append(event)
    events.close()
    place = Workplace(tmp_path, session=SessionState())
    async with showing(place) as (pilot, app):
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "The run broke off" in text_of(app)
        options = app.screen.query_one(OptionList)
        assert [option.id for option in options.options] == ["resume", "start", "new"]
        assert "Go on with test from what was saved last" in text_of(app) and "in runs/test-2" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: "Interrupted at step 463: enter goes on" in text_of(app))
        assert "INTERRUPTED" in text_of(app)
    place.close()
    again = Workplace(tmp_path, session=place.session)
    async with showing(again) as (pilot, app):  # who was asked once is told only
        await until(pilot, lambda: "test did not finish" in text_of(app))
        await until(pilot, lambda: "Interrupted at step 463: enter goes on" in text_of(app))
        await pilot.press("3", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
    again.close()
